//! The text of articles: plain, and cut to a size.

use std::borrow::Cow;

mod html;

/// Longer bodies are cut before they are read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// An article's body as plain text.
pub(crate) fn plain(body: &str, content_type: &str) -> String {
    let body = cut(body, BODY_BYTES_MAX).0;
    let is_html = content_type.trim_start().to_ascii_lowercase().starts_with("text/html");
    let text = if is_html { html::text(body).into() } else { Cow::from(body) };
    squeeze(&text)
}

/// Without spaces at line ends, and without runs of empty lines.
fn squeeze(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    lines.join("\n").trim_end().to_owned()
}

/// The text's beginning of at most so many bytes, and whether that is not all.
pub(crate) fn cut(text: &str, bytes_max: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(bytes_max);
    (&text[..end], end < text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_becomes_text_and_text_stays() {
        assert_eq!(
            plain("Hello,<br>a &lt; b<br><br><br><br>Tim", " Text/HTML; charset=utf-8"),
            "Hello,\na < b\n\nTim"
        );
        assert_eq!(plain("a < b\r\n<c> &lt; \n\n\n\nd", "text/plain"), "a < b\n<c> &lt;\n\nd");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("grün", 3), ("gr", true));
        assert_eq!(cut("grün", 5), ("grün", false));
    }
}
