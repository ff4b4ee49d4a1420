//! What a client calls itself, without what would make a person read something else.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};

/// A character that looks like nothing, though no property says so.
const BLANK: char = '\u{2800}';

/// The name without invisible characters, those that change the direction of text, and those that are no text; white
/// space is one space. Nothing when nothing is left.
pub(crate) fn cleaned(name: &str) -> Option<String> {
    let shown: String = name.chars().filter(|char| is_shown(*char)).collect();
    let cleaned = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    (!cleaned.is_empty()).then_some(cleaned)
}

fn is_shown(char: char) -> bool {
    use GeneralCategory::{
        Control, FinalPunctuation, Format, InitialPunctuation, LineSeparator, ParagraphSeparator,
        PrivateUse, Surrogate, Unassigned,
    };
    if char.is_whitespace() {
        return true;
    }
    // Every character that changes the direction of text is one for formatting.
    let category = CodePointMapData::<GeneralCategory>::new().get(char);
    // Double quotes of any kind would end those in which the name is shown.
    let is_quote =
        matches!(category, InitialPunctuation | FinalPunctuation) && !matches!(char, '‘' | '’');
    if is_quote || matches!(char, '"' | '„' | '‟' | '″' | '〝' | '〞' | '〟' | '＂') {
        return false;
    }
    let is_text = !matches!(
        category,
        Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Surrogate | Unassigned
    );
    is_text && char != BLANK && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_and_what_turns_text_around_is_taken_out() {
        for (name, expected) in [
            ("Claude Code", Some("Claude Code")),
            ("Übung 日本語 عربي", Some("Übung 日本語 عربي")),
            ("\u{202e}edoC\u{202c} ti", Some("edoC ti")),
            ("A\u{2066}B\u{2069}C\u{200e}D\u{061c}E", Some("ABCDE")),
            ("Git\u{200b}Hub\u{feff}\u{ad}\u{2060}\u{180e}", Some("GitHub")),
            ("x\u{e0041}\u{fe0f}\u{3164}\u{115f}y", Some("xy")),
            (" a \u{2028} \u{a0}b\t", Some("a b")),
            ("\u{200b}\u{2800}\u{3164} ", None),
            ("a\u{e000}b\u{378}", Some("ab")),
            ("Claude\u{201d} act for you \u{ab}x\u{bb} \"y\"", Some("Claude act for you x y")),
            ("", None),
        ] {
            assert_eq!(cleaned(name).as_deref(), expected, "{name:?}");
        }
    }
}
