//! Signed bundles of policies, as auth would take them.

use drawbridge_auth::policy::{
    PolicyError,
    bundle::{BundleConfig, BundleError, BundleLocation, inspect},
};
use drawbridge_runtime::error_chain;
use jiff::Timestamp;

use super::check::{Check, Finding};

/// A bundle, and the keys by which auth trusts it.
#[derive(Debug)]
pub(super) struct BundleTarget {
    pub(super) location: BundleLocation,
    pub(super) config: BundleConfig,
}

impl BundleTarget {
    /// Its check: fetches the bundle, verifies its signatures, and tests its policies.
    pub(super) fn check(self) -> Check {
        Check::new("policies", self.location.to_string(), async move { self.inspect().await })
    }

    async fn inspect(&self) -> Vec<Finding> {
        let inspected = match inspect(&self.location, &self.config).await {
            Ok(inspected) => inspected,
            Err(error) => return vec![self.failed(&error)],
        };
        let release = &inspected.release;
        let mut findings = vec![Finding::ok(format!(
            "bundle {} of revision {}, signed by {}",
            release.name,
            release.revision,
            inspected.signed_by.join(", ")
        ))];
        if let Some(not_after) = release.not_after.filter(|_| release.is_expired(Timestamp::now()))
        {
            let to_do = "sign a newer bundle (`drawbridge policy bundle --valid-days`) and push it";
            let found = format!("it has expired at {not_after}");
            findings.push(match self.config.deny_expired_policies {
                true => Finding::failed(format!("{found}: auth denies everything"), to_do),
                false => Finding::warning(found, to_do),
            });
        }
        findings
    }

    fn failed(&self, error: &BundleError) -> Finding {
        let location = &self.location;
        let to_do = match error {
            BundleError::NoKeys(_) | BundleError::Folder(_) | BundleError::Keys(_) => {
                "name the file of the public keys in auth's --policy-keys \
                 (docs/how-to/distribute-policies.md)"
                    .to_owned()
            }
            BundleError::Remote(_) | BundleError::Digest => {
                format!(
                    "see whether the server has {location} and its signature, and lets auth read them"
                )
            }
            BundleError::Note(_) | BundleError::Signers { .. } | BundleError::Name { .. } => {
                "sign it with enough of the keys in --policy-keys (`drawbridge policy sign`), and \
                 push it again"
                    .to_owned()
            }
            _ => "correct the policies (`drawbridge policy check`, `policy test`), and push a new \
                  bundle"
                .to_owned(),
        };
        let found = match error {
            // Its text may quote policies over many lines.
            BundleError::Policies(PolicyError(problems)) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                let first = first.lines().next().unwrap_or_default().to_owned();
                format!("auth would refuse its policies: {first}")
            }
            error => error_chain(error),
        };
        Finding::failed(found, to_do)
    }
}
