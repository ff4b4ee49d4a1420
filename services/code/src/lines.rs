//! Lines of a text that is in memory.

/// The longest line that is shown, in bytes.
const LINE_BYTES_MAX: usize = 2000;

/// A line as it is shown: without its line end, as UTF-8, cut when too long.
pub(crate) fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // Three bytes more than are shown, so that the last character shown is whole.
    let head = &line[..line.len().min(LINE_BYTES_MAX + 3)];
    let mut text = String::from_utf8_lossy(head).into_owned();
    text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
    text
}

/// The up to `count` lines that end where a line starts, in order.
pub(crate) fn before(text: &[u8], line_start: usize, count: usize) -> Vec<String> {
    let mut end = line_start;
    let mut lines = Vec::new();
    while end > 0 && lines.len() < count {
        let start = text[..end - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        lines.push(shown(&text[start..end]));
        end = start;
    }
    lines.reverse();
    lines
}

/// The up to `count` lines that start where a line ends, in order.
pub(crate) fn after(text: &[u8], line_end: usize, count: usize) -> Vec<String> {
    text[line_end..].split_inclusive(|byte| *byte == b'\n').take(count).map(shown).collect()
}

/// How many lines end in this text.
pub(crate) fn count(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Where the text can be taken apart into pieces of whole lines and about `bytes` bytes: the pieces' ends.
pub(crate) fn piece_ends(text: &[u8], bytes: usize) -> impl Iterator<Item = usize> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let least = bytes.clamp(1, rest.len());
        let newline = rest[least - 1..].iter().position(|byte| *byte == b'\n');
        start += newline.map_or(rest.len(), |newline| least + newline);
        Some(start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_without_its_line_end() {
        for line in ["text", "text\n", "text\r\n"] {
            assert_eq!(shown(line.as_bytes()), "text");
        }
        assert_eq!(shown(b"\r\n"), "");
        assert_eq!(shown(b"a\rb\r\r\n"), "a\rb\r");
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        for (line, bytes) in [
            ("x".repeat(2000), 2000),
            ("x".repeat(5000), 2000),
            ("ä".repeat(1500), 2000),
            (format!("x{}", "ä".repeat(1500)), 1999),
            (format!("{}🦀🦀", "x".repeat(1997)), 1997),
        ] {
            let cut = shown(line.as_bytes());
            assert_eq!(cut.len(), bytes);
            assert!(line.starts_with(&cut));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(shown(b"a\xffb\n"), "a\u{fffd}b");
        assert!(shown(&b"\xff".repeat(2000)).len() <= 2000);
    }

    #[test]
    fn context_stops_at_the_files_ends() {
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
        assert_eq!(piece_ends(text, 1).collect::<Vec<_>>(), [4, 8, 14, 18]);
        assert_eq!(piece_ends(text, 4).collect::<Vec<_>>(), [4, 8, 14, 18]);
        assert_eq!(piece_ends(text, 5).collect::<Vec<_>>(), [8, 14, 18]);
        assert_eq!(piece_ends(text, 100).collect::<Vec<_>>(), [18]);
        assert_eq!(piece_ends(b"", 1).count(), 0);
    }
}
