//! What is wrong in the structure of a file.

use std::ops::Range;

/// Something that is wrong in the structure of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) span: Range<usize>,
    pub(crate) problem: String,
    pub(crate) help: Option<String>,
}
