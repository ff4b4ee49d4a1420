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
    // Records of earlier versions have the other word.
    #[serde(alias = "perhaps")]
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
            Self::Conditional => "conditional",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conditional_outcome_has_one_word_and_records_of_earlier_versions_are_read() {
        let written = serde_json::to_string(&DecisionOutcome::Conditional).unwrap();
        assert_eq!(written, format!("{:?}", DecisionOutcome::Conditional.as_str()));
        assert_eq!(written, r#""conditional""#);
        for word in [written.as_str(), r#""perhaps""#] {
            assert_eq!(
                serde_json::from_str::<DecisionOutcome>(word).unwrap(),
                DecisionOutcome::Conditional
            );
        }
    }
}
