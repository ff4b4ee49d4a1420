//! Converts the text of articles to plain text, and truncates it.

use std::borrow::Cow;

mod html;

/// Longer bodies are truncated before conversion, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// An article's body as plain text.
pub(crate) fn to_plain_text(body: &str, content_type: &str) -> String {
    let body = truncate(body, BODY_BYTES_MAX).0;
    let is_html = content_type.trim_start().to_ascii_lowercase().starts_with("text/html");
    let text = if is_html { html::text(body).into() } else { Cow::from(body) };
    collapse_blank_lines(&text)
}

/// Removes trailing spaces and repeated blank lines.
fn collapse_blank_lines(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    lines.join("\n").trim_end().to_owned()
}

/// The first `bytes_max` bytes of the text, at a character boundary, and whether it was truncated.
pub(crate) fn truncate(text: &str, bytes_max: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(bytes_max);
    (&text[..end], end < text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_converted_and_text_is_unchanged() {
        assert_eq!(
            to_plain_text("Hello,<br>a &lt; b<br><br><br><br>Tim", " Text/HTML; charset=utf-8"),
            "Hello,\na < b\n\nTim"
        );
        assert_eq!(
            to_plain_text("a < b\r\n<c> &lt; \n\n\n\nd", "text/plain"),
            "a < b\n<c> &lt;\n\nd"
        );
    }

    #[test]
    fn text_is_truncated_between_characters() {
        assert_eq!(truncate("grün", 3), ("gr", true));
        assert_eq!(truncate("grün", 5), ("grün", false));
    }
}
