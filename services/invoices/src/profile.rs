//! What a document says that it follows (BT-24), as far as other rules hold for it.

/// The part of EN 16931 that a document follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    /// All of it: EN 16931 itself, and what restricts it (a CIUS), such as XRechnung, Peppol and
    /// Factur-X BASIC.
    #[default]
    Full,
    /// Factur-X and ZUGFeRD MINIMUM: parties and totals.
    Minimum,
    /// Factur-X and ZUGFeRD BASIC WL: no lines.
    BasicWl,
    /// An extension, such as Factur-X EXTENDED: lines may be parts of others, and totals round each
    /// part.
    Extended,
}

/// The rules that hold for MINIMUM.
const MINIMUM: [&str; 13] = [
    "BR-01", "BR-02", "BR-03", "BR-04", "BR-05", "BR-06", "BR-07", "BR-08", "BR-09", "BR-13",
    "BR-14", "BR-15", "BR-CO-26",
];
/// The rules that do not hold for BASIC WL, besides those that sum the lines of a VAT category.
const NOT_BASIC_WL: [&str; 3] = ["BR-16", "BR-CO-10", "BR-CO-25"];
/// The rules that are no rules of EN 16931, and hold for all.
const GENERAL: [&str; 3] = ["FORMAT", "PROFILE", "ATTACHMENT"];

impl Profile {
    /// The profile that an identifier of a specification names.
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

    /// Whether a rule holds.
    pub(crate) fn has(self, rule: &str) -> bool {
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

    /// What a reader should know of a profile that is less than an invoice.
    pub(crate) fn note(self) -> Option<&'static str> {
        match self {
            Self::Minimum => Some(
                "the profile MINIMUM has no lines, no VAT breakdown and no due date: it is data for booking, and no \
                 invoice by EN 16931; the rules about what it has not are not checked",
            ),
            Self::BasicWl => Some(
                "the profile BASIC WL has no lines: it is data for booking, and no invoice by EN 16931; the rules \
                 about lines are not checked",
            ),
            Self::Full | Self::Extended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_in_the_identifiers_of_specifications() {
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
    fn a_profile_without_lines_has_no_rules_about_lines() {
        for rule in ["BR-16", "BR-CO-10", "BR-CO-25", "BR-S-01", "BR-S-08", "BR-AE-01"] {
            assert!(!Profile::BasicWl.has(rule) && !Profile::Minimum.has(rule), "{rule}");
        }
        for rule in ["BR-01", "BR-08", "BR-15", "BR-CO-26", "FORMAT"] {
            assert!(Profile::BasicWl.has(rule) && Profile::Minimum.has(rule), "{rule}");
        }
        for rule in ["BR-12", "BR-CO-11", "BR-CO-14", "BR-S-09", "BR-CO-17", "BR-45"] {
            assert!(Profile::BasicWl.has(rule) && !Profile::Minimum.has(rule), "{rule}");
        }
    }
}
