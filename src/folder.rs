//! Folders and files that may be believed: who can change what stands there.

pub mod trust;
