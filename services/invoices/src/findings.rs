//! What is wrong with an invoice, bounded.

use drawbridge_proto::invoices::v1::{Finding, Severity};

use crate::profile::Profile;

/// The most findings, as the contract says.
const FINDINGS_MAX: usize = 200;

/// Findings in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) list: Vec<Finding>,
    /// Whether there were more.
    pub(crate) truncated: bool,
    /// Rules that do not hold for it are none.
    pub(crate) profile: Profile,
}

impl Findings {
    /// The invoice breaks a rule.
    pub(crate) fn error(&mut self, rule: &str, field: &str, message: impl FnOnce() -> String) {
        self.add(rule, Severity::Error, field, message);
    }

    /// The invoice deserves a look.
    pub(crate) fn warning(&mut self, rule: &str, field: &str, message: impl FnOnce() -> String) {
        self.add(rule, Severity::Warning, field, message);
    }

    /// A rule asks for something to be there.
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
        if !self.profile.has(rule) {
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
