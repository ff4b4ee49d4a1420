use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Bounded, Name, Spanned};

/// The smallest size cap, which leaves space for the notice, in bytes.
pub const GUARD_BYTES_MIN: u64 = 256;
/// No response of a tool service is larger, in bytes.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A guard on what tool services send.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardEntry {
    /// What the guard does.
    pub kind: Spanned<GuardKindName>,
    /// For `redact`: built-in patterns.
    #[serde(default)]
    pub redact: Vec<PatternClass>,
    /// For `redact`: custom patterns, which run before the built-in ones.
    #[serde(default)]
    pub patterns: Vec<PatternEntry>,
    /// For `size`: the texts and the base64 of a response, in bytes.
    pub bytes_max: Option<Bounded<GUARD_BYTES_MIN, BYTES_MAX>>,
    /// The tools, resources and prompts to which it applies. Default: all.
    pub only: Option<BTreeSet<String>>,
    /// The tools, resources and prompts to which it does not apply.
    #[serde(default)]
    pub except: BTreeSet<String>,
}

/// What a guard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GuardKindName {
    /// It removes invisible characters.
    Strip,
    /// It replaces secrets and personal data.
    Redact,
    /// It cuts long texts.
    Size,
}

/// The built-in patterns of a `redact` guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PatternClass {
    /// Keys, tokens, and passwords in connection strings.
    Secrets,
    /// Card numbers.
    Cards,
    /// Bank accounts.
    Iban,
    /// E-mail addresses.
    Email,
}

/// A custom pattern of a `redact` guard.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatternEntry {
    /// The name in counters.
    pub name: Name,
    /// A regular expression in the syntax of Rust's `regex`. Of a pattern with a group `secret`
    /// only that group is replaced.
    pub pattern: Spanned<String>,
    /// The text that replaces a match. Default: `[redacted:<name>]`.
    pub replacement: Option<Spanned<String>>,
}
