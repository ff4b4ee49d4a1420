//! Characters that text may hide something in.

use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};

/// Whether a character has no visible shape: controls (but not tab, line feed and carriage return),
/// and all that Unicode lets a renderer ignore, such as joiners, fillers, marks of direction,
/// variation selectors and tags (`Default_Ignorable_Code_Point`).
#[must_use]
pub fn is_invisible(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control() && !matches!(character, '\t' | '\n' | '\r');
    }
    // The marks of interlinear annotations are not ignorable, but are shown by no renderer.
    character.is_control()
        || matches!(character, '\u{fff9}'..='\u{fffb}')
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_those_without_a_shape() {
        let invisible = [
            '\0',
            '\u{8}',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180b}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{206f}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{1bca0}',
            '\u{1d173}',
            '\u{e0041}',
            '\u{e0fff}',
        ];
        for character in invisible {
            assert!(is_invisible(character), "{character:?}");
        }
        // Number signs of Arabic are format characters, and visible.
        for character in ['a', ' ', '\t', '\n', '\r', '\u{a0}', 'é', 'ی', '漢', '👩', '\u{600}']
        {
            assert!(!is_invisible(character), "{character:?}");
        }
    }
}
