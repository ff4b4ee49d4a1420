//! Whether two URI templates have a URI in common.

use super::{Part, UriTemplate};

/// What a template takes at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// This byte.
    Byte(u8),
    /// A byte of a variable's value.
    One { reserved: bool },
    /// Any number of them.
    Any { reserved: bool },
}

impl Token {
    /// Whether a byte is both.
    fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Byte(one), Self::Byte(other)) => one == other,
            (Self::Byte(byte), Self::One { reserved } | Self::Any { reserved })
            | (Self::One { reserved } | Self::Any { reserved }, Self::Byte(byte)) => {
                reserved || !matches!(byte, b'/' | b'?' | b'#')
            }
            _ => true,
        }
    }

    fn repeats(self) -> bool {
        matches!(self, Self::Any { .. })
    }
}

impl UriTemplate {
    /// Whether a URI could be of both templates. It may say so of two that have none in common,
    /// where a variable is followed by a text that its own value may contain; never the other way
    /// round.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (one, other) = (self.tokens(), other.tokens());
        // Most differ early.
        let differs = |(one, other): (&Token, &Token)| matches!((one, other), (Token::Byte(one), Token::Byte(other)) if one != other);
        let literal = |(one, other): &(&Token, &Token)| {
            matches!((one, other), (Token::Byte(_), Token::Byte(_)))
        };
        if one.iter().zip(&other).take_while(literal).any(differs) {
            return false;
        }
        meet(&one, &other)
    }

    fn tokens(&self) -> Vec<Token> {
        let mut tokens = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => tokens.extend(literal.bytes().map(Token::Byte)),
                &Part::Variable { reserved, .. } => {
                    tokens.extend([Token::One { reserved }, Token::Any { reserved }]);
                }
            }
        }
        tokens
    }
}

/// Whether both can be walked through to their ends with the same bytes. A step never goes back in
/// either, so that one pass over all pairs of places finds each that can be reached.
fn meet(one: &[Token], other: &[Token]) -> bool {
    let mut row = vec![false; other.len() + 1];
    row[0] = true;
    for i in 0..=one.len() {
        let mut next = vec![false; other.len() + 1];
        for j in 0..=other.len() {
            if !row[j] {
                continue;
            }
            let (here, there) = (one.get(i).copied(), other.get(j).copied());
            // What may be left out is.
            next[j] |= here.is_some_and(Token::repeats);
            if there.is_some_and(Token::repeats) {
                row[j + 1] = true;
            }
            let (Some(here), Some(there)) = (here, there) else { continue };
            if here.meets(there) {
                match (here.repeats(), there.repeats()) {
                    (true, true) => {}
                    (true, false) => row[j + 1] = true,
                    (false, true) => next[j] = true,
                    (false, false) => next[j + 1] = true,
                }
            }
        }
        if i == one.len() {
            return row[other.len()];
        }
        row = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(one: &str, other: &str, expected: bool) {
        let parse = |text| UriTemplate::parse(text).unwrap();
        let (parsed, against) = (parse(one), parse(other));
        assert_eq!(parsed.overlaps(&against), expected, "{one} {other}");
        assert_eq!(against.overlaps(&parsed), expected, "{other} {one}");
        assert!(parsed.overlaps(&parsed));
    }

    #[test]
    fn templates_that_have_a_uri_in_common_overlap() {
        check("code://{+path}", "code://{+anything}", true);
        check("code://{+path}", "code://src/{file}", true);
        check("code://{+path}", "code://README.md", true);
        check("x://{a}/of/{b}", "x://{+rest}", true);
        check("x://{a}/of/{b}", "x://1/{what}/2", true);
        check("x://{a}-end", "x://start-{b}", true);
        check("x://{+a}/z", "x://y/{+b}", true);
    }

    #[test]
    fn templates_without_a_common_uri_do_not_overlap() {
        check("code://{+path}", "codes://{+path}", false);
        check("x://{a}", "x://1/2", false);
        check("x://{a}", "x://{b}/2", false);
        check("x://{a}/of/{b}", "x://{a}/to/{b}", false);
        check("x://all", "x://al", false);
        check("x://{a}", "x://", false);
        check("x://{+a}.rs", "x://{+a}.py", false);
    }

    #[test]
    fn what_two_templates_match_overlaps() {
        let parts = ["a", "-", "/", "{x}", "{+y}"];
        let mut templates = vec![String::from("s://")];
        for _ in 0..3 {
            let longer: Vec<_> = templates
                .iter()
                .flat_map(|begun| parts.iter().map(move |part| format!("{begun}{part}")))
                .collect();
            templates.extend(longer);
        }
        templates.sort();
        templates.dedup();
        let templates: Vec<_> =
            templates.iter().filter_map(|text| UriTemplate::parse(text).ok()).collect();
        let uris =
            ["s://a", "s://a-a", "s://a/a", "s://-/-", "s://aa", "s://a-", "s://a/-/a", "s://b"];
        for uri in uris {
            let matching: Vec<_> =
                templates.iter().filter(|template| template.matches(uri).is_some()).collect();
            for one in &matching {
                for other in &matching {
                    assert!(
                        one.overlaps(other),
                        "{} and {} match {uri}",
                        one.as_str(),
                        other.as_str()
                    );
                }
            }
        }
    }
}
