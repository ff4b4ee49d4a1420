//! Decisions and their outcomes.

/// The decision on one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDecision {
    /// Whether it is allowed.
    pub outcome: DecisionOutcome,
    /// The `@id`s of the policies that determined the outcome, sorted.
    pub policy_ids: Vec<String>,
    /// The decision if policies annotated `@shadow` applied too, when its outcome differs.
    pub shadow: Option<Shadow>,
    /// Whether other arguments could change the outcome. False only if no policy with a matching
    /// scope reads them.
    pub reads_arguments: bool,
}

/// The effect of shadow policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The outcome with shadow policies.
    pub outcome: DecisionOutcome,
    /// The `@id`s of the policies that would determine it, sorted.
    pub policy_ids: Vec<String>,
}

/// Whether an operation is allowed, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionOutcome {
    /// Allowed; if no arguments were given, for all arguments.
    Allow,
    /// It depends on the arguments, which were not given.
    #[serde(rename = "perhaps")]
    Conditional,
    /// No policy permits it.
    NotPermitted,
    /// A policy forbids it.
    Forbidden,
    /// The policy catalog does not have this item, or has it with another RPC.
    NotInCatalog,
    /// The arguments do not match the action's schema.
    Arguments,
    /// A policy could not be evaluated. A failed `forbid` must not be ignored.
    Error,
}

impl DecisionOutcome {
    /// The outcome in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Conditional => "perhaps",
            Self::NotPermitted => "not_permitted",
            Self::Forbidden => "forbidden",
            Self::NotInCatalog => "not_in_catalog",
            Self::Arguments => "arguments",
            Self::Error => "error",
        }
    }
}

impl From<DecisionOutcome> for PolicyDecision {
    fn from(outcome: DecisionOutcome) -> Self {
        Self { outcome, policy_ids: Vec::new(), shadow: None, reads_arguments: false }
    }
}
