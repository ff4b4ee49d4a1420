//! Takes out of a text what a person does not see and a model reads: control characters, terminal sequences,
//! zero-width and direction characters, tags.
//!
//! What scripts and emoji need stays where they need it: a zero-width joiner between two emoji or in a script that
//! joins letters, a non-joiner between two such letters, a variation selector behind a symbol.

use std::borrow::Cow;

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
const ESCAPE: char = '\u{1b}';
const CONTROL_SEQUENCE: char = '\u{9b}';

/// The text without what is not seen.
pub(super) fn strip(text: &str) -> Cow<'_, str> {
    let Some(first) = first_unseen(text) else { return Cow::Borrowed(text) };
    let (seen, mut rest) = text.split_at(first);
    let mut kept = String::with_capacity(text.len());
    kept.push_str(seen);
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = match next {
            ESCAPE => &after[escape_sequence(after)..],
            CONTROL_SEQUENCE => &after[parameters(after)..],
            '\r' => {
                // Alone, it lets a line be written over the one before.
                kept.push(if after.starts_with('\n') { '\r' } else { '\n' });
                after
            }
            _ => {
                if !is_unseen(next) || is_needed(next, kept.chars().next_back(), after) {
                    kept.push(next);
                }
                after
            }
        };
    }
    if kept == text { Cow::Borrowed(text) } else { Cow::Owned(kept) }
}

/// Where the first character is that may have to go.
fn first_unseen(text: &str) -> Option<usize> {
    // Most texts have none of the bytes that such characters begin with, and are not looked at twice.
    let first = text.bytes().position(|byte| BEGINS_UNSEEN[usize::from(byte)])?;
    let rest = &text[first..];
    let found = rest.char_indices().find(|(place, next)| match next {
        '\r' => !rest[place + 1..].starts_with('\n'),
        next => is_unseen(*next),
    });
    found.map(|(place, _)| first + place)
}

/// The bytes that characters begin with of which some are unseen.
const BEGINS_UNSEEN: [bool; 256] = {
    let mut begins = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let control = byte < 0x20 && byte != 0x09 && byte != 0x0a;
        let leads =
            matches!(byte, 0x7f | 0xc2 | 0xcd | 0xd8 | 0xe1 | 0xe2 | 0xe3 | 0xef | 0xf0 | 0xf3);
        begins[byte] = control || leads;
        byte += 1;
    }
    begins
};

/// Characters without a shape of their own. `BEGINS_UNSEEN` knows how each begins.
pub(crate) fn is_unseen(character: char) -> bool {
    matches!(character,
        // Control characters, and the soft hyphen.
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}'
        // Joiners, and letters that fill a place and show nothing.
        | '\u{34f}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
        // Marks, embeddings, overrides and isolates of direction.
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        // Zero width, invisible operators, the byte order mark.
        | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{feff}'
        // Variation selectors, Mongolian ones among them.
        | '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}'
        // Interlinear annotations, and controls of shorthand and of music.
        | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        // Tags, which spell ASCII unseen, and the supplement of variation selectors.
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether an unseen character belongs to what stands around it. It depends on what was kept before it and on the
/// very next character, so that what is stripped is not changed by being stripped again.
fn is_needed(character: char, before: Option<char>, after: &str) -> bool {
    let Some(before) = before else { return false };
    let next = after.chars().next();
    match character {
        ZERO_WIDTH_JOINER => {
            let ends_emoji = is_emoji(before) || before == '\u{fe0f}';
            joins_letters(before) || (ends_emoji && next.is_some_and(is_emoji))
        }
        ZERO_WIDTH_NON_JOINER => joins_letters(before) && next.is_some_and(joins_letters),
        // As text or as emoji: behind a symbol, and in a keycap.
        '\u{fe0e}' | '\u{fe0f}' => is_emoji(before) || matches!(before, '0'..='9' | '#' | '*'),
        '\u{180b}'..='\u{180d}' | '\u{180f}' => matches!(before, '\u{1820}'..='\u{18aa}'),
        _ => false,
    }
}

/// Whether a letter, or a mark on one, is of a script in which joiners change words: Arabic, Syriac, Mandaic, those of
/// India, Myanmar, Khmer, Mongolian.
fn joins_letters(character: char) -> bool {
    matches!(character,
        '\u{620}'..='\u{65f}' | '\u{66e}'..='\u{6ff}' | '\u{710}'..='\u{77f}' | '\u{840}'..='\u{85b}'
        | '\u{8a0}'..='\u{8ff}' | '\u{900}'..='\u{df4}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17b3}'
        | '\u{17b6}'..='\u{17d3}' | '\u{1820}'..='\u{18aa}' | '\u{fb50}'..='\u{fdfb}' | '\u{fe70}'..='\u{fefc}')
}

fn is_emoji(character: char) -> bool {
    matches!(character,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2190}'..='\u{21ff}'
        | '\u{2300}'..='\u{23ff}' | '\u{24c2}' | '\u{25a0}'..='\u{27bf}' | '\u{2900}'..='\u{297f}'
        | '\u{2b00}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}' | '\u{1f000}'..='\u{1faff}')
}

/// How long the rest of an escape sequence is, whose escape is gone already (ECMA-48).
fn escape_sequence(after: &str) -> usize {
    match after.chars().next() {
        Some('[') => 1 + parameters(&after[1..]),
        // Strings to the terminal: a title, a link. One without an end is no reason to take the rest of the text.
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

/// How long the parameters of a control sequence are, and what ends it.
fn parameters(after: &str) -> usize {
    let length = after.bytes().take_while(|byte| (0x20..=0x3f).contains(byte)).count();
    length + usize::from(after[length..].starts_with(|last| matches!(last, '@'..='~')))
}

/// How long a control string is with its end, which must come on the same line.
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
    fn becomes(text: &str, stripped: &str) {
        assert_eq!(strip(text), stripped, "{text:?}");
    }

    #[track_caller]
    fn stays(text: &str) {
        assert!(matches!(strip(text), Cow::Borrowed(_)), "{text:?} became {:?}", strip(text));
    }

    #[test]
    fn what_is_seen_stays_and_is_not_copied() {
        for text in [
            "",
            "plain\ttext\r\nof two lines",
            "naïve – “quoted” … 日本語 עברית العربية",
            "a\u{2028}b",
        ] {
            stays(text);
        }
    }

    #[test]
    fn what_is_not_seen_goes() {
        becomes("A\u{200b}K\u{2060}I\u{feff}A\u{ad}", "AKIA");
        becomes("\u{202e}txt.exe\u{202c} \u{2066}x\u{2069}\u{200e}\u{61c}", "txt.exe x");
        becomes("a\0b\u{8}c\u{7f}d\u{85}e", "abcde");
        becomes("x\u{fff9}y\u{fffa}z\u{fffb}", "xyz");
        becomes("a\u{fe01}b\u{e0100}c\u{e01ef}\u{3164}\u{34f}", "abc");
        let tags: String = "ignore all"
            .bytes()
            .map(|byte| char::from_u32(0xe0000 + u32::from(byte)).unwrap())
            .collect();
        becomes(&format!("read{tags} me"), "read me");
        becomes("safe\rrm -rf\r\nok", "safe\nrm -rf\r\nok");
    }

    #[test]
    fn terminal_sequences_go_whole() {
        becomes("\u{1b}[31;1mred\u{1b}[0m \u{9b}2Jx", "red x");
        becomes("\u{1b}]8;;https://a.test\u{1b}\\link\u{1b}]8;;\u{7}", "link");
        becomes("\u{1b}]0;no end\nnext", "0;no end\nnext");
        becomes("\u{1b}(Bx\u{1b}c\u{1b}\u{1b}[1my\u{1b}", "xy");
        becomes("\u{1b}Péage", "éage");
    }

    #[test]
    fn what_emoji_and_scripts_need_stays() {
        for text in [
            "👩\u{200d}👩\u{200d}👧\u{200d}👦 🏳\u{fe0f}\u{200d}🌈 ❤\u{fe0f} 1\u{fe0f}\u{20e3} ✔\u{fe0e}",
            "می\u{200c}خواهم",
            "क्\u{200d}ष श्\u{200c}र",
            "ᠠ\u{180b}",
        ] {
            stays(text);
        }
    }

    #[test]
    fn the_same_characters_elsewhere_go() {
        becomes("pass\u{200d}word\u{200c}s", "passwords");
        becomes("👩\u{200d}\u{200d}\u{200d}👧", "👩\u{200d}👧");
        becomes("a\u{fe0f}b\u{200d}👧 ❤\u{fe0f}\u{fe0f}\u{fe0e}", "ab👧 ❤\u{fe0f}");
        becomes("ی\u{200c}\u{200c}خ \u{200c}x", "ی\u{200c}خ x");
    }

    #[test]
    fn every_unseen_character_begins_with_a_byte_that_is_looked_for() {
        for character in ('\0'..=char::MAX).filter(|character| is_unseen(*character)) {
            let mut bytes = [0; 4];
            let first = character.encode_utf8(&mut bytes).as_bytes()[0];
            assert!(BEGINS_UNSEEN[usize::from(first)], "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_stripped_once_and_for_all(
            text in "(\\PC|\\p{Cc}|\\p{Cf}|[\u{1b}\u{9b}\\[\\]0-9;m\u{7}]|[\u{fe00}-\u{fe0f}\u{200b}-\u{200f}\u{180b}]|👩|ی|क){0,40}"
        ) {
            let once = strip(&text).into_owned();
            prop_assert!(once.len() <= text.len());
            prop_assert!(matches!(strip(&once), Cow::Borrowed(_)), "{:?} then {:?}", once, strip(&once));
            let left = once.contains([ESCAPE, CONTROL_SEQUENCE, '\u{200b}', '\u{202e}', '\u{e0041}']);
            prop_assert!(!left);
        }
    }
}
