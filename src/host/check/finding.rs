//! What there is to say of one thing.

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing.
    Ok,
    /// Somebody should see to it; today it works.
    Warning,
    /// This login would be refused.
    Refused,
    /// The host is at fault.
    Fault,
}

impl Verdict {
    /// As it is told.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Refused => "refused",
            Self::Fault => "fault",
        }
    }
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, in a word.
    pub about: &'static str,
    /// What follows.
    pub verdict: Verdict,
    /// In words.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    fn new(about: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { about, verdict, message: message.into(), hint: None }
    }

    /// That it is well.
    pub fn ok(about: &'static str, message: impl Into<String>) -> Self {
        Self::new(about, Verdict::Ok, message)
    }

    /// That it will not be.
    pub fn warning(about: &'static str, message: impl Into<String>) -> Self {
        Self::new(about, Verdict::Warning, message)
    }

    /// That it keeps this login out.
    pub fn refused(about: &'static str, message: impl Into<String>) -> Self {
        Self::new(about, Verdict::Refused, message)
    }

    /// That the host is to be mended.
    pub fn fault(about: &'static str, message: impl Into<String>) -> Self {
        Self::new(about, Verdict::Fault, message)
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}
