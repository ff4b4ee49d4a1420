//! Whether two URI templates can match the same URI.

use super::{Part, UriTemplate};

/// One step of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// This byte.
    Byte(u8),
    /// One byte of a variable's value.
    One { reserved: bool },
    /// Any number of bytes of a variable's value.
    Any { reserved: bool },
}

impl Step {
    /// Whether one byte fits both.
    fn intersects(self, other: Self) -> bool {
        match (self, other) {
            (Self::Byte(one), Self::Byte(other)) => one == other,
            (Self::Byte(byte), Self::One { reserved } | Self::Any { reserved })
            | (Self::One { reserved } | Self::Any { reserved }, Self::Byte(byte)) => {
                reserved || !matches!(byte, b'/' | b'?' | b'#')
            }
            _ => true,
        }
    }

    fn is_repeated(self) -> bool {
        matches!(self, Self::Any { .. })
    }
}

impl UriTemplate {
    /// Whether a URI may match both templates. False positives are possible where a variable is
    /// followed by text that its own value may contain; false negatives are not.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (one, other) = (self.steps(), other.steps());
        // Most templates differ in their literal prefixes.
        let differs = |(one, other): (&Step, &Step)| one != other;
        let is_literal =
            |(one, other): &(&Step, &Step)| matches!((one, other), (Step::Byte(_), Step::Byte(_)));
        if one.iter().zip(&other).take_while(is_literal).any(differs) {
            return false;
        }
        intersect(&one, &other)
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => steps.extend(literal.bytes().map(Step::Byte)),
                &Part::Variable { reserved, .. } => {
                    steps.extend([Step::One { reserved }, Step::Any { reserved }]);
                }
            }
        }
        steps
    }
}

/// Whether the same bytes lead to the end of both. Transitions only advance, so one pass over all
/// pairs of positions finds the reachable ones.
fn intersect(one: &[Step], other: &[Step]) -> bool {
    let mut reachable = vec![false; other.len() + 1];
    reachable[0] = true;
    for i in 0..=one.len() {
        let mut next = vec![false; other.len() + 1];
        for j in 0..=other.len() {
            if !reachable[j] {
                continue;
            }
            let (here, there) = (one.get(i).copied(), other.get(j).copied());
            // A repeated step may be skipped.
            next[j] |= here.is_some_and(Step::is_repeated);
            if there.is_some_and(Step::is_repeated) {
                reachable[j + 1] = true;
            }
            let (Some(here), Some(there)) = (here, there) else { continue };
            if here.intersects(there) {
                match (here.is_repeated(), there.is_repeated()) {
                    (true, true) => {}
                    (true, false) => reachable[j + 1] = true,
                    (false, true) => next[j] = true,
                    (false, false) => next[j + 1] = true,
                }
            }
        }
        if i == one.len() {
            return reachable[other.len()];
        }
        reachable = next;
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
    fn templates_with_a_common_uri_overlap() {
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
    fn templates_that_match_the_same_uri_overlap() {
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
