//! Cleaning of client names, so that users cannot be misled by them.

use drawbridge_runtime::is_invisible;
use icu_properties::{CodePointMapData, props::GeneralCategory};

/// An invisible character without a property for it.
const BLANK: char = '\u{2800}';

/// The name without invisible characters, characters that change text direction, and non-text
/// characters. White space becomes one space. `None` if nothing remains.
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
    // Characters that change the text direction are format characters.
    let category = CodePointMapData::<GeneralCategory>::new().get(char);
    // Double quotes of any kind could end the quotes in which the name is shown.
    let is_quote =
        matches!(category, InitialPunctuation | FinalPunctuation) && !matches!(char, '‘' | '’');
    if is_quote || matches!(char, '"' | '„' | '‟' | '″' | '〝' | '〞' | '〟' | '＂') {
        return false;
    }
    let is_text = !matches!(
        category,
        Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Surrogate | Unassigned
    );
    is_text && char != BLANK && !is_invisible(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_and_bidirectional_characters_are_removed() {
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
