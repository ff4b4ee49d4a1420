//! The keys that sign policy bundles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bounded, Spanned};

/// The keys that sign policy bundles, and how many of them must have signed one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyKeysFile {
    /// Which bundles these keys are trusted for: the name that they were made with. Environments
    /// with different policies have different names, so that none gets the bundle of another.
    #[serde(default = "default_name")]
    pub name: Spanned<String>,
    /// How many of the keys must have signed a bundle.
    #[serde(default = "default_threshold")]
    pub threshold: Bounded<1, 64>,
    /// The public keys, as `drawbridge policy key` prints them.
    pub keys: Vec<Spanned<String>>,
}

/// The name of bundles where none is given.
pub const DEFAULT_NAME: &str = "policies";

fn default_name() -> Spanned<String> {
    DEFAULT_NAME.to_owned().into()
}

fn default_threshold() -> Bounded<1, 64> {
    Bounded::new(1)
}
