//! The audit records of the config file and the catalog lock.

use std::path::Path;

use data_encoding::HEXLOWER;
use drawbridge_audit::{AuditLog, Event, event::ConfigChange};
use drawbridge_config::ConfigText;
use drawbridge_runtime::error_chain;
use sha2::{Digest as _, Sha256};

use super::ConfigSources;
use crate::StartError;

/// Records which config file, and which lock, is in force or was rejected. `sources` are absent if
/// they cannot be read.
pub(crate) fn record_change(
    audit: &AuditLog,
    path: &Path,
    sources: Option<&ConfigSources>,
    applied: Result<(), &StartError>,
) {
    let record = |what: &str, source: &Path, text: Option<&ConfigText>| {
        audit.record(Event::ConfigChange(ConfigChange {
            what: what.to_owned(),
            source: source.display().to_string(),
            digest: text.map(digest).unwrap_or_default(),
            accepted: applied.is_ok(),
            problem: applied.err().map(problem).unwrap_or_default(),
        }));
    };
    record("config", path, sources.map(|sources| &sources.config));
    if let Some(lock) = sources.and_then(|sources| sources.lock.as_ref()) {
        record("lock", lock.path(), Some(lock));
    }
}

/// The problem without any text of the file, which may contain secrets.
fn problem(error: &StartError) -> String {
    match error {
        StartError::ConfigFile(error) => error.brief(),
        error => error_chain(error),
    }
}

fn digest(text: &ConfigText) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_str()))
}
