//! Which policies are in force, for operators.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bundle::{BundleError, Release};
use crate::metrics::{
    POLICIES_CURRENT, POLICIES_SINCE, POLICY_RELOADS_FAILED, POLICY_REVISION_INFO,
};

/// The path of the admin port at which auth serves [`PolicyStatus`] as JSON.
pub const STATUS_PATH: &str = "/policies";

/// Which policies a replica of auth has in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The digest of the policies, schemas, catalog and memberships.
    pub revision: String,
    /// Where they come from: a folder or a URL.
    pub source: String,
    /// Since when they are in force (RFC 3339).
    pub since: String,
    /// The bundle. Absent: they come from a folder.
    pub bundle: Option<BundleStatus>,
    /// Why what is at the source now is not in force.
    pub problem: Option<String>,
}

/// The bundle that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleStatus {
    /// Its name.
    pub name: String,
    /// Its number.
    pub revision: u64,
    /// Its digest.
    pub sha256: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// When a newer one should have arrived (RFC 3339).
    pub not_after: Option<String>,
}

impl From<&Release> for BundleStatus {
    fn from(release: &Release) -> Self {
        Self {
            name: release.name.clone(),
            revision: release.revision,
            sha256: release.sha256_hex(),
            created: release.created.to_string(),
            not_after: release.not_after.map(|not_after| not_after.to_string()),
        }
    }
}

/// The status as it changes.
#[derive(Debug)]
pub(super) struct StatusBoard(Mutex<PolicyStatus>);

impl StatusBoard {
    pub(super) fn new(source: String, revision: &str, release: Option<&Release>) -> Self {
        let status = PolicyStatus {
            revision: revision.to_owned(),
            source,
            since: now(),
            bundle: release.map(BundleStatus::from),
            problem: None,
        };
        export(&status, 1);
        note_change();
        Self(Mutex::new(status))
    }

    pub(super) fn get(&self) -> PolicyStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other policies are in force, or the same ones of another bundle.
    pub(super) fn replaced(&self, revision: &str, release: Option<&Release>) {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bundle = release.map(BundleStatus::from);
        if status.revision != revision || status.bundle != bundle {
            export(&status, 0);
            if status.revision != revision {
                status.since = now();
                note_change();
            }
            (status.revision, status.bundle) = (revision.to_owned(), bundle);
            export(&status, 1);
        }
    }

    /// The source was read, or why what it has is not in force. Each problem is logged once. Returns
    /// whether it is a new one.
    pub(super) fn report(&self, error: Option<&BundleError>) -> bool {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = error.map(|error| {
            let bundle = status.bundle.as_ref().map_or(0, |bundle| bundle.revision);
            format!("{}; revision {bundle} stays in force", error.brief())
        });
        let is_new = problem.is_some() && status.problem != problem;
        if let Some(error) = error
            && is_new
        {
            let source = &status.source;
            let error_chain = drawbridge_runtime::error_chain(error);
            if error.is_transient() {
                tracing::warn!(source, "the policies stay as they are: {error_chain}");
            } else {
                POLICY_RELOADS_FAILED.get().increment(1);
                tracing::error!(source, "the policy bundle is refused: {error_chain}");
            }
        }
        POLICIES_CURRENT.get().set(u8::from(problem.is_none()));
        status.problem = problem;
        is_new
    }
}

fn export(status: &PolicyStatus, value: u8) {
    let bundle = status.bundle.as_ref().map_or_else(String::new, |it| it.revision.to_string());
    let labels = [status.revision.clone().into(), bundle.into(), status.source.clone().into()];
    POLICY_REVISION_INFO.with(labels).set(value);
}

/// Other policies are in force from now on.
fn note_change() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    POLICIES_SINCE.get().set(now.as_secs_f64());
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
