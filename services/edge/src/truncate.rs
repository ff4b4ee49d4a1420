//! Texts of callers in logs, spans and errors.

/// How many bytes of a caller's text a log line, span or error contains.
const TEXT_BYTES_MAX: usize = 128;

/// The beginning of a caller's text, for logs, spans and errors.
pub(crate) fn truncate(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
