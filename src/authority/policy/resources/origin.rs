//! Where a resource stands, over files.

use std::fmt;
use std::sync::Arc;

use crate::document::Place;

/// A place in a file; displayed `FILE:LINE:COL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file's name.
    pub file: Arc<str>,
    /// The place in it.
    pub place: Place,
}

impl Origin {
    /// Another place of the same file.
    pub fn at(&self, place: Place) -> Self {
        Self { file: Arc::clone(&self.file), place }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.place.line, self.place.column)
    }
}
