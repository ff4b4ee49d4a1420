//! The specification that a document follows (BT-24), as far as it changes the rules.

/// The part of EN 16931 that a document follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    /// All of it: EN 16931 itself, and restrictions of it (a CIUS) such as XRechnung, Peppol and
    /// Factur-X BASIC.
    #[default]
    Full,
    /// Factur-X and ZUGFeRD MINIMUM: parties and totals.
    Minimum,
    /// Factur-X and ZUGFeRD BASIC WL: no lines.
    BasicWl,
    /// An extension such as Factur-X EXTENDED: lines may have sublines, and each part of a total
    /// may be rounded.
    Extended,
}

/// The rules that apply to MINIMUM.
const MINIMUM: [&str; 13] = [
    "BR-01", "BR-02", "BR-03", "BR-04", "BR-05", "BR-06", "BR-07", "BR-08", "BR-09", "BR-13",
    "BR-14", "BR-15", "BR-CO-26",
];
/// The rules that do not apply to BASIC WL, besides those that sum the lines of a VAT category.
const NOT_BASIC_WL: [&str; 3] = ["BR-16", "BR-CO-10", "BR-CO-25"];
/// Rules outside EN 16931, which apply to all profiles.
const GENERAL: [&str; 3] = ["FORMAT", "PROFILE", "ATTACHMENT"];

impl Profile {
    /// The profile of a specification identifier.
    pub(crate) fn of(specification: &str) -> Self {
        let specification = specification.to_ascii_lowercase();
        if specification.ends_with(":minimum") {
            Self::Minimum
        } else if specification.ends_with(":basicwl") {
            Self::BasicWl
        } else if specification.contains("#conformant#") {
            Self::Extended
        } else {
            Self::Full
        }
    }

    /// Whether a rule applies.
    pub(crate) fn applies(self, rule: &str) -> bool {
        match self {
            Self::Full | Self::Extended => true,
            Self::Minimum => GENERAL.contains(&rule) || MINIMUM.contains(&rule),
            Self::BasicWl => {
                let sums_lines =
                    rule.starts_with("BR-") && !rule.starts_with("BR-CO-") && rule.len() > 5;
                !NOT_BASIC_WL.contains(&rule)
                    && !(sums_lines && (rule.ends_with("-01") || rule.ends_with("-08")))
            }
        }
    }

    /// The warning about a profile that is less than an invoice.
    pub(crate) fn warning(self) -> Option<&'static str> {
        match self {
            Self::Minimum => Some(
                "the profile MINIMUM has no lines, no VAT breakdown and no due date: it is booking \
                 data and not an invoice under EN 16931; rules about the missing parts are not \
                 checked",
            ),
            Self::BasicWl => Some(
                "the profile BASIC WL has no lines: it is booking data and not an invoice under EN \
                 16931; rules about lines are not checked",
            ),
            Self::Full | Self::Extended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_parsed_from_specification_identifiers() {
        for (specification, profile) in [
            ("urn:cen.eu:en16931:2017", Profile::Full),
            ("urn:cen.eu:en16931:2017#compliant#urn:factur-x.eu:1p0:basic", Profile::Full),
            (
                "urn:cen.eu:en16931:2017#compliant#urn:xeinkauf.de:kosit:xrechnung_3.0",
                Profile::Full,
            ),
            ("urn:factur-x.eu:1p0:minimum", Profile::Minimum),
            ("urn:zugferd.de:2p0:minimum", Profile::Minimum),
            ("urn:factur-x.eu:1p0:basicwl", Profile::BasicWl),
            ("urn:cen.eu:en16931:2017#conformant#urn:factur-x.eu:1p0:extended", Profile::Extended),
            ("urn:cen.eu:en16931:2017#conformant#urn:zugferd.de:2p0:extended", Profile::Extended),
            ("", Profile::Full),
        ] {
            assert_eq!(Profile::of(specification), profile, "{specification}");
        }
    }

    #[test]
    fn rules_about_lines_do_not_apply_to_profiles_without_lines() {
        for rule in ["BR-16", "BR-CO-10", "BR-CO-25", "BR-S-01", "BR-S-08", "BR-AE-01"] {
            assert!(!Profile::BasicWl.applies(rule) && !Profile::Minimum.applies(rule), "{rule}");
        }
        for rule in ["BR-01", "BR-08", "BR-15", "BR-CO-26", "FORMAT"] {
            assert!(Profile::BasicWl.applies(rule) && Profile::Minimum.applies(rule), "{rule}");
        }
        for rule in ["BR-12", "BR-CO-11", "BR-CO-14", "BR-S-09", "BR-CO-17", "BR-45"] {
            assert!(Profile::BasicWl.applies(rule) && !Profile::Minimum.applies(rule), "{rule}");
        }
    }
}
