//! Intended differences from the official rules. docs/reference/services/invoices.md contains each
//! reason verbatim.

/// Rules of the official artefacts that are not checked here.
const UNCHECKED: [(&str, &str); 13] = [
    ("XSD", SYNTAX),
    ("UBL-", SYNTAX),
    ("CII-", SYNTAX),
    ("BR-CL-", "code lists other than VAT categories and types of documents"),
    ("BR-28", UNREAD),
    ("BR-52", UNREAD),
    ("BR-54", UNREAD),
    ("BR-57", UNREAD),
    ("BR-IC-12", UNREAD),
    ("BR-CO-21", TWICE),
    ("BR-CO-22", TWICE),
    ("BR-CO-23", TWICE),
    ("BR-CO-24", TWICE),
];
const SYNTAX: &str = "what the syntax alone asks";
const UNREAD: &str = "what is not read of an invoice";
const TWICE: &str = "say what BR-33, BR-38, BR-42 and BR-44 say";

/// Violations found only here.
const NO_ADDRESS: &str = "Without an address there is no country either";
const DUE: &str = "The artefacts leave BR-CO-25 out";
const CII_ACCOUNT: &str = "In CII they look at an account only where there is one";
const CII_FIRST: &str =
    "In CII a subtotal of the category O, L or M is checked by the first rule about it alone";
const VAT_DECIMALS: &str = "They do not see the decimals of VAT totals";
const CII_GROSS: &str =
    "In CII a gross amount that equals the net amount is right whatever the VAT";
const CII_BASES: &str =
    "In CII the base of a category without tax may be off by less than one unit";
const CII_COUNTS: &str = "In CII lines count as subtotals";
/// Violations found only by the artefacts.
const MISSING: &str = "A value that is missing is one finding";
const SCHEME: &str = "A tax without a scheme is taken for VAT";
const UNUSED: &str = "A subtotal that nothing uses is a wrong base";
const CII_O: &str = "In CII each of BR-O-11 to BR-O-14 looks at more than its own part";
const CII_RATE: &str = "In CII IGIC and IPSI at a rate of 0 are wrong";
const SAME_CURRENCY: &str = "A currency for VAT that is the document's asks for no second total";

pub(super) const REASONS: [&str; 18] = [
    SYNTAX,
    UNREAD,
    TWICE,
    "code lists other than VAT categories and types of documents",
    NO_ADDRESS,
    DUE,
    CII_ACCOUNT,
    CII_FIRST,
    VAT_DECIMALS,
    CII_GROSS,
    CII_BASES,
    CII_COUNTS,
    MISSING,
    SCHEME,
    UNUSED,
    CII_O,
    CII_RATE,
    SAME_CURRENCY,
];

/// Why a rule is not checked here.
pub(super) fn unchecked(rule: &str) -> Option<&'static str> {
    UNCHECKED.iter().find(|(family, _)| rule.starts_with(family)).map(|(_, reason)| *reason)
}

/// Why a violation is found only here, or only by the official rules. The document's name tells
/// what was changed.
pub(super) fn reason(rule: &str, document: &str, is_here: bool) -> Option<&'static str> {
    let is_cii = ["CII", "XRechnung-O", "huf_", "own-credit-note"]
        .iter()
        .any(|name| document.starts_with(name));
    let without = |name: &str| document.contains(&format!(".no-{name}-"));
    let ends = |numbers: &[&str]| numbers.iter().any(|number| rule.ends_with(number));
    let reasons: &[(bool, &str)] = &if is_here {
        vec![
            (["BR-09", "BR-11", "BR-20"].contains(&rule) && without("PostalAddress"), NO_ADDRESS),
            (rule == "BR-CO-25", DUE),
            (is_cii && rule == "BR-61", CII_ACCOUNT),
            (
                is_cii && ["BR-45", "BR-46", "BR-48", "BR-CO-17", "BR-DEC-20"].contains(&rule),
                CII_FIRST,
            ),
            (["BR-DEC-13", "BR-DEC-15"].contains(&rule), VAT_DECIMALS),
            (is_cii && rule == "BR-CO-15", CII_GROSS),
            (is_cii && ends(&["-08"]), CII_BASES),
            (is_cii && ends(&["-01"]), CII_COUNTS),
        ]
    } else {
        let sums = [
            "BR-27",
            "BR-CO-10",
            "BR-CO-13",
            "BR-CO-14",
            "BR-CO-15",
            "BR-CO-16",
            "BR-CO-17",
            "BR-DEC-15",
        ];
        let is_scheme = without("TypeCode") || without("ID");
        vec![
            (document.contains(".no-") && (sums.contains(&rule) || ends(&["-08", "-09"])), MISSING),
            // The new category requires a rate, which the subtotal lacks.
            (
                document.contains("Category")
                    && ["BR-S-09", "BR-AF-09", "BR-AG-09"].contains(&rule),
                MISSING,
            ),
            (is_scheme && (ends(&["-32", "-37", "-47", "-48", "-04", "-02"])), SCHEME),
            (ends(&["-01"]) || (document.contains("TaxCategory-") && rule == "BR-S-08"), UNUSED),
            (is_cii && rule.starts_with("BR-O-1"), CII_O),
            (
                is_cii
                    && ["BR-AF-0", "BR-AG-0"].iter().any(|name| rule.starts_with(name))
                    && ends(&["5", "6", "7"]),
                CII_RATE,
            ),
            (rule == "BR-53", SAME_CURRENCY),
        ]
    };
    reasons.iter().find(|(holds, _)| *holds).map(|(_, reason)| *reason)
}
