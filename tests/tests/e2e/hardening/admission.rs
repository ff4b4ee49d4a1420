//! Before the caller is known, and what a caller may write.
