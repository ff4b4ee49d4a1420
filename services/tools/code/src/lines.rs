//! Lines of an in-memory text.

use std::ops::Range;

/// The longest line in a result, in bytes.
const LINE_BYTES_MAX: usize = 2000;

/// A line as shown in results: without its line end, as UTF-8, truncated if too long.
pub(crate) fn display_line(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // Three extra bytes, so that the last character is complete.
    let head = &line[..line.len().min(LINE_BYTES_MAX + 3)];
    let mut text = String::from_utf8_lossy(head).into_owned();
    text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
    text
}

/// Up to `count` lines before the line that starts at `line_start`, in order.
pub(crate) fn before(text: &[u8], line_start: usize, count: usize) -> Vec<String> {
    let mut end = line_start;
    let mut lines = Vec::new();
    while end > 0 && lines.len() < count {
        let start = memchr::memrchr(b'\n', &text[..end - 1]).map_or(0, |newline| newline + 1);
        lines.push(display_line(&text[start..end]));
        end = start;
    }
    lines.reverse();
    lines
}

/// Up to `count` lines from `line_end`, where a line ends, in order.
pub(crate) fn after(text: &[u8], line_end: usize, count: usize) -> Vec<String> {
    text[line_end..].split_inclusive(|byte| *byte == b'\n').take(count).map(display_line).collect()
}

/// The number of line ends in this text.
pub(crate) fn count(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
}

/// The end, including the line end, of the line that contains the byte before `position`.
pub(crate) fn end(text: &[u8], position: usize) -> usize {
    let last = position.saturating_sub(1);
    memchr::memchr(b'\n', &text[last..]).map_or(text.len(), |newline| last + newline + 1)
}

/// A part of a text that is searched in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Whole lines.
    Lines(Range<usize>),
    /// The beginning of an overlong line.
    Beginning(Range<usize>),
}

impl Piece {
    pub(crate) fn range(&self) -> Range<usize> {
        match self {
            Self::Lines(range) | Self::Beginning(range) => range.clone(),
        }
    }
}

/// Splits a text into runs of whole lines of about `bytes`, and the beginnings of lines longer than
/// `line_bytes_max`, without line ends.
pub(crate) fn pieces(
    text: &[u8],
    bytes: usize,
    line_bytes_max: usize,
) -> impl Iterator<Item = Piece> {
    let is_long = move |line: &Range<usize>| {
        let without_end = text[line.clone()].strip_suffix(b"\n").unwrap_or(&text[line.clone()]);
        without_end.len() > line_bytes_max
    };
    let line_at = move |start: usize| (start < text.len()).then(|| start..end(text, start + 1));
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = line_at(start)?;
        if is_long(&first) {
            start = first.end;
            return Some(Piece::Beginning(first.start..first.start + line_bytes_max));
        }
        let mut lines = first;
        while lines.len() < bytes
            && let Some(next) = line_at(lines.end).filter(|next| !is_long(next))
        {
            lines.end = next.end;
        }
        start = lines.end;
        Some(Piece::Lines(lines))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_displayed_line_has_no_line_end() {
        for line in ["text", "text\n", "text\r\n"] {
            assert_eq!(display_line(line.as_bytes()), "text");
        }
        assert_eq!(display_line(b"\r\n"), "");
        assert_eq!(display_line(b"a\rb\r\r\n"), "a\rb\r");
    }

    #[test]
    fn a_long_line_is_truncated_at_a_character() {
        for (line, bytes) in [
            ("x".repeat(2000), 2000),
            ("x".repeat(5000), 2000),
            ("ä".repeat(1500), 2000),
            (format!("x{}", "ä".repeat(1500)), 1999),
            (format!("{}🦀🦀", "x".repeat(1997)), 1997),
        ] {
            let cut = display_line(line.as_bytes());
            assert_eq!(cut.len(), bytes);
            assert!(line.starts_with(&cut));
        }
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(display_line(b"a\xffb\n"), "a\u{fffd}b");
        assert!(display_line(&b"\xff".repeat(2000)).len() <= 2000);
    }

    #[test]
    fn context_stops_at_the_ends_of_the_file() {
        let text = b"one\ntwo\r\nthree\nfour";
        let three = 9;
        assert_eq!(before(text, three, 1), ["two"]);
        assert_eq!(before(text, three, 20), ["one", "two"]);
        assert_eq!(before(text, 0, 20), [""; 0]);
        assert_eq!(after(text, three + 6, 20), ["four"]);
        assert_eq!(after(text, text.len(), 20), [""; 0]);
        assert_eq!(before(b"\n\n\nx", 3, 2), ["", ""]);
    }

    #[test]
    fn pieces_are_whole_lines_and_cover_the_text() {
        let text = b"one\ntwo\nthree\nfour";
        let ends =
            |text, bytes| pieces(text, bytes, 5).map(|piece| piece.range().end).collect::<Vec<_>>();
        assert_eq!(ends(text, 1), [4, 8, 14, 18]);
        assert_eq!(ends(text, 4), [4, 8, 14, 18]);
        assert_eq!(ends(text, 5), [8, 14, 18]);
        assert_eq!(ends(text, 100), [18]);
        assert_eq!(ends(b"", 1), [0; 0]);
    }

    #[test]
    fn the_beginning_of_an_overlong_line_is_a_piece() {
        let text = b"one\nlonger\nfour\n\nlongest";
        assert_eq!(
            pieces(text, 100, 4).collect::<Vec<_>>(),
            [
                Piece::Lines(0..4),
                Piece::Beginning(4..8),
                Piece::Lines(11..17),
                Piece::Beginning(17..21)
            ]
        );
        assert_eq!((end(text, 8), end(text, 21), end(text, 4)), (11, 24, 4));
    }
}
