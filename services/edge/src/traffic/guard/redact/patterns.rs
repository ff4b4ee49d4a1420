//! The built-in patterns by class.

use drawbridge_config::edge::PatternClass;

use super::numbers;

/// One pattern. The group `secret`, if it has one, is replaced, otherwise the whole match.
pub(super) struct BuiltInPattern {
    pub(super) class: PatternClass,
    /// The name in counters and replacements.
    pub(super) name: &'static str,
    pub(super) pattern: &'static str,
    pub(super) validation: Validation,
}

/// How a match is validated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Validation {
    /// By its shape alone.
    Shape,
    /// By a check digit. The function returns the length of the number.
    Number(fn(&str) -> Option<usize>),
    /// It must have digits and letters, unlike words.
    Mixed,
}

const fn secret(name: &'static str, pattern: &'static str) -> BuiltInPattern {
    BuiltInPattern { class: PatternClass::Secrets, name, pattern, validation: Validation::Shape }
}

const fn mixed(name: &'static str, pattern: &'static str) -> BuiltInPattern {
    BuiltInPattern { class: PatternClass::Secrets, name, pattern, validation: Validation::Mixed }
}

/// In order of matching: a password before an `@` would match as an e-mail address.
pub(super) const BUILT_IN: [BuiltInPattern; 23] = [
    // To the END line or, in a truncated text, as far as a key could extend.
    secret(
        "private-key",
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:-?[^-])*(?:-----END [A-Z0-9 ]*-----)?",
    ),
    // Signed or encrypted.
    secret(
        "jwt",
        r"(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,2}",
    ),
    secret("aws-key-id", r"(?-u:\b)(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)"),
    secret(
        "aws-secret-key",
        r#"(?i:secret[_-]?(?:access[_-]?)?key)["']?\s*(?:=>|[:=])\s*["']?(?<secret>[A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]|$)"#,
    ),
    secret("github-token", r"(?-u:\b)(?:gh[oprsu]_[A-Za-z0-9_]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    secret(
        "gitlab-token",
        r"(?-u:\b)gl(?:agent|cbt|dt|ffct|imt|oas|pat|ptt|rt|rtr|soat)-[A-Za-z0-9_.=-]{20,}",
    ),
    secret("slack-token", r"(?-u:\b)(?:xox[a-z]|xapp|xwfp)-[A-Za-z0-9-]{10,}"),
    secret(
        "slack-webhook",
        r"(?-u:\b)hooks\.slack\.com/(?:services|triggers|workflows)/[A-Za-z0-9/_+-]{20,}",
    ),
    secret(
        "stripe-key",
        r"(?-u:\b)(?:[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{24,})",
    ),
    secret(
        "google-key",
        r"(?-u:\b)(?:AIza[A-Za-z0-9_-]{35,}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,})",
    ),
    mixed("model-api-key", r"(?-u:\b)sk-[A-Za-z0-9_-]{20,}"),
    secret("npm-token", r"(?-u:\b)npm_[A-Za-z0-9]{36,}"),
    secret("pypi-token", r"(?-u:\b)pypi-AgE[A-Za-z0-9_-]{50,}"),
    secret("vault-token", r"(?-u:\b)hv[brs]\.[A-Za-z0-9_-]{20,}"),
    // The format of Vault before 1.10, and of OpenBao.
    mixed("vault-token", r"(?-u:\b)[brs]\.[A-Za-z0-9]{24}(?-u:\b)"),
    secret("azure-key", r"(?i:(?:account|sharedaccess)key=)(?<secret>[A-Za-z0-9+/]{43,}=*)"),
    secret(
        "authorization",
        r#"(?i:authorization)["']?\s*[:=]\s*["']?(?i:basic|bearer|token)\s+(?<secret>[A-Za-z0-9._~+/-]{8,}=*)"#,
    ),
    mixed("authorization", r"(?-u:\b)(?i:bearer)\s+(?<secret>[A-Za-z0-9._~+/-]{16,}=*)"),
    // scheme://user:password@host
    secret(
        "password",
        r#"(?-u:\b)[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@"'<>]*:(?<secret>[^\s/?#"'<>]+)@"#,
    ),
    // host=… password=…, and Server=…;Password=…
    secret(
        "password",
        r#"(?i:data source|database|dbname|host|hostaddr|initial catalog|server|uid|user|user id|username) ?=[^\r\n]*?[;\s"'](?i:password|pwd) ?= ?(?<secret>"[^"\r\n]+"|'[^'\r\n]+'|[^\s;"']+)"#,
    ),
    BuiltInPattern {
        class: PatternClass::Cards,
        name: "card",
        pattern: r"(?-u:\b)[2-6][0-9](?:[ -]?[0-9]){11}",
        validation: Validation::Number(numbers::card),
    },
    BuiltInPattern {
        class: PatternClass::Iban,
        name: "iban",
        pattern: r"(?-u:\b)[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11}",
        validation: Validation::Number(numbers::iban),
    },
    BuiltInPattern {
        class: PatternClass::Email,
        name: "email",
        pattern: r"[\p{L}\p{N}._%+-]+@(?:[\p{L}\p{N}-]+\.)+\p{L}{2,}",
        validation: Validation::Shape,
    },
];

/// Suffixes of names of JSON fields whose values are secrets. Compared in lower case, without `_`
/// and `-`.
const SECRET_NAMES: [&str; 12] = [
    "accesstoken",
    "apikey",
    "authorization",
    "authtoken",
    "clientsecret",
    "idtoken",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "refreshtoken",
    "secretkey",
];

/// Whether the value of a field with this name is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    // Longer texts are not field names.
    if name.len() > 64 {
        return false;
    }
    let plain: String = name
        .chars()
        .filter(|letter| !matches!(letter, '_' | '-'))
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    plain.ends_with("secretaccesskey") || SECRET_NAMES.iter().any(|name| plain.ends_with(name))
}
