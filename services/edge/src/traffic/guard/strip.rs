//! Removes characters that people do not see and models read: control characters, terminal
//! sequences, zero-width and bidi characters, tags.
//!
//! Characters that scripts and emoji need stay: a zero-width joiner between two emoji or in a
//! joining script, a non-joiner between two joining letters, a variation selector after a symbol.

use std::borrow::Cow;

use drawbridge_runtime::is_invisible;

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
const ESCAPE: char = '\u{1b}';
const CONTROL_SEQUENCE: char = '\u{9b}';

/// The text without invisible characters.
pub(super) fn strip(text: &str) -> Cow<'_, str> {
    let Some(first) = first_invisible(text) else { return Cow::Borrowed(text) };
    let (visible, mut rest) = text.split_at(first);
    let mut stripped = String::with_capacity(text.len());
    stripped.push_str(visible);
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = match next {
            ESCAPE => &after[escape_sequence(after)..],
            CONTROL_SEQUENCE => &after[parameters(after)..],
            '\r' => {
                // Alone, it lets a line overwrite the one before.
                stripped.push(if after.starts_with('\n') { '\r' } else { '\n' });
                after
            }
            _ => {
                if !is_invisible(next) || is_needed(next, stripped.chars().next_back(), after) {
                    stripped.push(next);
                }
                after
            }
        };
    }
    if stripped == text { Cow::Borrowed(text) } else { Cow::Owned(stripped) }
}

/// The position of the first character that may have to be removed.
fn first_invisible(text: &str) -> Option<usize> {
    // Most texts have no byte that such characters begin with.
    let first = text.bytes().position(|byte| INVISIBLE_FIRST_BYTES[usize::from(byte)])?;
    let rest = &text[first..];
    let found = rest.char_indices().find(|(place, next)| match next {
        '\r' => !rest[place + 1..].starts_with('\n'),
        next => is_invisible(*next),
    });
    found.map(|(place, _)| first + place)
}

/// The first bytes of invisible characters. A test holds it against [`is_invisible`].
const INVISIBLE_FIRST_BYTES: [bool; 256] = {
    let mut first_bytes = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_control = byte < 0x20 && byte != 0x09 && byte != 0x0a;
        let is_lead =
            matches!(byte, 0x7f | 0xc2 | 0xcd | 0xd8 | 0xe1 | 0xe2 | 0xe3 | 0xef | 0xf0 | 0xf3);
        first_bytes[byte] = is_control || is_lead;
        byte += 1;
    }
    first_bytes
};

/// Whether an invisible character is needed between its neighbours. Depends only on the stripped
/// text before it and on the next character, so that stripping is idempotent.
fn is_needed(character: char, before: Option<char>, after: &str) -> bool {
    let Some(before) = before else { return false };
    let next = after.chars().next();
    match character {
        ZERO_WIDTH_JOINER => {
            let is_after_emoji = is_emoji(before) || before == '\u{fe0f}';
            is_joining(before) || (is_after_emoji && next.is_some_and(is_emoji))
        }
        ZERO_WIDTH_NON_JOINER => is_joining(before) && next.is_some_and(is_joining),
        // Text or emoji presentation: after a symbol, and in a keycap.
        '\u{fe0e}' | '\u{fe0f}' => is_emoji(before) || matches!(before, '0'..='9' | '#' | '*'),
        '\u{180b}'..='\u{180d}' | '\u{180f}' => matches!(before, '\u{1820}'..='\u{18aa}'),
        _ => false,
    }
}

/// Whether a letter or mark belongs to a script in which joiners change words: Arabic, Syriac,
/// Mandaic, Indic scripts, Myanmar, Khmer, Mongolian.
fn is_joining(character: char) -> bool {
    matches!(character,
        '\u{620}'..='\u{65f}' | '\u{66e}'..='\u{6ff}' | '\u{710}'..='\u{77f}'
        | '\u{840}'..='\u{85b}' | '\u{8a0}'..='\u{8ff}' | '\u{900}'..='\u{df4}'
        | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17b3}' | '\u{17b6}'..='\u{17d3}'
        | '\u{1820}'..='\u{18aa}' | '\u{fb50}'..='\u{fdfb}' | '\u{fe70}'..='\u{fefc}')
}

fn is_emoji(character: char) -> bool {
    matches!(character,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}'
        | '\u{2190}'..='\u{21ff}'
        | '\u{2300}'..='\u{23ff}' | '\u{24c2}' | '\u{25a0}'..='\u{27bf}' | '\u{2900}'..='\u{297f}'
        | '\u{2b00}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}'
        | '\u{1f000}'..='\u{1faff}')
}

/// The length of an escape sequence after its escape character (ECMA-48).
fn escape_sequence(after: &str) -> usize {
    match after.chars().next() {
        Some('[') => 1 + parameters(&after[1..]),
        // Strings for the terminal: a title, a link. Without an end, the rest of the text stays.
        Some(']' | 'P' | 'X' | '^' | '_') => match control_string(&after[1..]) {
            Some(length) => 1 + length,
            None => 1,
        },
        Some(' '..='/') => {
            let between = after.bytes().take_while(|byte| (0x20..=0x2f).contains(byte)).count();
            between + usize::from(after[between..].starts_with(|last| matches!(last, '0'..='~')))
        }
        Some('0'..='~') => 1,
        _ => 0,
    }
}

/// The length of the parameters of a control sequence and its final byte.
fn parameters(after: &str) -> usize {
    let length = after.bytes().take_while(|byte| (0x20..=0x3f).contains(byte)).count();
    length + usize::from(after[length..].starts_with(|last| matches!(last, '@'..='~')))
}

/// The length of a control string including its end, which must be on the same line.
fn control_string(after: &str) -> Option<usize> {
    let end = after.find(['\u{7}', '\u{9c}', ESCAPE, '\n'])?;
    let ending = &after[end..];
    match ending.chars().next()? {
        '\u{7}' => Some(end + 1),
        '\u{9c}' => Some(end + 2),
        _ if ending.starts_with("\u{1b}\\") => Some(end + 2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, stripped: &str) {
        assert_eq!(strip(text), stripped, "{text:?}");
    }

    #[track_caller]
    fn check_unchanged(text: &str) {
        assert!(matches!(strip(text), Cow::Borrowed(_)), "{text:?} became {:?}", strip(text));
    }

    #[test]
    fn visible_text_is_unchanged_and_not_copied() {
        for text in [
            "",
            "plain\ttext\r\nof two lines",
            "naïve – “quoted” … 日本語 עברית العربية",
            "a\u{2028}b",
        ] {
            check_unchanged(text);
        }
    }

    #[test]
    fn invisible_characters_are_removed() {
        check("A\u{200b}K\u{2060}I\u{feff}A\u{ad}", "AKIA");
        check("\u{202e}txt.exe\u{202c} \u{2066}x\u{2069}\u{200e}\u{61c}", "txt.exe x");
        check("a\0b\u{8}c\u{7f}d\u{85}e", "abcde");
        check("x\u{fff9}y\u{fffa}z\u{fffb}", "xyz");
        check("a\u{fe01}b\u{e0100}c\u{e01ef}\u{3164}\u{34f}", "abc");
        let tags: String = "ignore all"
            .bytes()
            .map(|byte| char::from_u32(0xe0000 + u32::from(byte)).unwrap())
            .collect();
        check(&format!("read{tags} me"), "read me");
        check("safe\rrm -rf\r\nok", "safe\nrm -rf\r\nok");
    }

    #[test]
    fn terminal_sequences_are_removed_whole() {
        check("\u{1b}[31;1mred\u{1b}[0m \u{9b}2Jx", "red x");
        check("\u{1b}]8;;https://a.test\u{1b}\\link\u{1b}]8;;\u{7}", "link");
        check("\u{1b}]0;no end\nnext", "0;no end\nnext");
        check("\u{1b}(Bx\u{1b}c\u{1b}\u{1b}[1my\u{1b}", "xy");
        check("\u{1b}Péage", "éage");
    }

    #[test]
    fn characters_that_emoji_and_scripts_need_are_retained() {
        for text in [
            "👩\u{200d}👩\u{200d}👧\u{200d}👦 🏳\u{fe0f}\u{200d}🌈 ❤\u{fe0f} 1\u{fe0f}\u{20e3} ✔\u{fe0e}",
            "می\u{200c}خواهم",
            "क्\u{200d}ष श्\u{200c}र",
            "ᠠ\u{180b}",
        ] {
            check_unchanged(text);
        }
    }

    #[test]
    fn the_same_characters_elsewhere_are_removed() {
        check("pass\u{200d}word\u{200c}s", "passwords");
        check("👩\u{200d}\u{200d}\u{200d}👧", "👩\u{200d}👧");
        check("a\u{fe0f}b\u{200d}👧 ❤\u{fe0f}\u{fe0f}\u{fe0e}", "ab👧 ❤\u{fe0f}");
        check("ی\u{200c}\u{200c}خ \u{200c}x", "ی\u{200c}خ x");
    }

    #[test]
    fn every_invisible_character_has_a_known_first_byte() {
        for character in ('\0'..=char::MAX).filter(|character| is_invisible(*character)) {
            let mut bytes = [0; 4];
            let first = character.encode_utf8(&mut bytes).as_bytes()[0];
            assert!(INVISIBLE_FIRST_BYTES[usize::from(first)], "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn stripping_is_idempotent(
            text in "(\\PC|\\p{Cc}|\\p{Cf}|[\u{1b}\u{9b}\\[\\]0-9;m\u{7}]|\
                [\u{fe00}-\u{fe0f}\u{200b}-\u{200f}\u{180b}]|👩|ی|क){0,40}"
        ) {
            let once = strip(&text).into_owned();
            prop_assert!(once.len() <= text.len());
            let twice = strip(&once);
            prop_assert!(matches!(twice, Cow::Borrowed(_)), "{:?} then {:?}", once, twice);
            let invisible = [ESCAPE, CONTROL_SEQUENCE, '\u{200b}', '\u{202e}', '\u{e0041}'];
            prop_assert!(!once.contains(invisible));
        }
    }
}
