//! A bounded list of findings about an invoice.

use drawbridge_proto::invoices::v1::{Finding, Severity};

use crate::profile::Profile;

/// The maximum number of findings, as the contract states.
const FINDINGS_MAX: usize = 200;

/// Findings in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) list: Vec<Finding>,
    /// Whether the maximum was exceeded.
    pub(crate) truncated: bool,
    /// Findings of rules that do not apply to this profile are dropped.
    pub(crate) profile: Profile,
}

impl Findings {
    /// Adds a violated rule.
    pub(crate) fn error(&mut self, rule: &str, field: &str, message: impl FnOnce() -> String) {
        self.add(rule, Severity::Error, field, message);
    }

    /// Adds a warning.
    pub(crate) fn warning(&mut self, rule: &str, field: &str, message: impl FnOnce() -> String) {
        self.add(rule, Severity::Warning, field, message);
    }

    /// Adds an error if a required value is missing.
    pub(crate) fn require(&mut self, present: bool, rule: &str, field: &str, what: &str) {
        if !present {
            self.error(rule, field, || format!("{what} is missing"));
        }
    }

    fn add(
        &mut self,
        rule: &str,
        severity: Severity,
        field: &str,
        message: impl FnOnce() -> String,
    ) {
        if !self.profile.applies(rule) {
            return;
        }
        if self.list.len() == FINDINGS_MAX {
            self.truncated = true;
            return;
        }
        self.list.push(Finding {
            rule: rule.to_owned(),
            severity: severity.into(),
            message: message(),
            field: field.to_owned(),
        });
    }
}
