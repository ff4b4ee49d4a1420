//! The writer of the decision log.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use data_encoding::HEXLOWER;
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use drawbridge_runtime::{RequestId, ServiceBuilder, trace};
use drawbridge_transport::{LoggedCaller, log_call, transaction_token::Actor};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::{DecisionRecord, ShadowRecord, files::DailyFiles};
use crate::{
    Identity,
    metrics::{DECISION_LOG_ERRORS, DECISIONS},
    policy::PolicyDecision,
};

/// Where decisions are recorded, and how much of them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Decision log")]
pub struct DecisionLogConfig {
    /// Write each decision as a line of JSON: to standard output (`-`), or to daily files in this
    /// folder. Only the user of the process can read the files, and the folder if it is created.
    #[arg(long, value_name = "FOLDER|-")]
    pub decision_log: Option<PathBuf>,

    /// How many daily files to retain.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub decision_log_days: usize,

    /// Record arguments too, without sensitive ones.
    #[arg(long, requires = "decision_log")]
    pub decision_log_arguments: bool,
}

impl Default for DecisionLogConfig {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}

/// The decision log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the decision log in {}", folder.display())]
pub struct DecisionLogError {
    folder: PathBuf,
    source: io::Error,
}

/// A decision to record.
pub(crate) struct DecisionEntry<'a> {
    /// The id that names the request in the record.
    pub(crate) request_id: &'a RequestId,
    /// The id that an internal caller sent.
    pub(crate) caller_request_id: Option<&'a RequestId>,
    pub(crate) identity: &'a Identity,
    /// The service that calls on behalf of the subject.
    pub(crate) actor: Option<&'a Actor>,
    pub(crate) kind: Kind,
    pub(crate) item: &'a pb::CatalogItem,
    /// The arguments, without sensitive ones.
    pub(crate) arguments: Option<&'a [u8]>,
    /// Whether sensitive arguments were removed.
    pub(crate) redacted: bool,
    pub(crate) decision: &'a PolicyDecision,
    /// Scopes that the item requires, if the token lacks one of them.
    pub(crate) missing_scopes: &'a [String],
    pub(crate) revision: &'a str,
    pub(crate) took: Duration,
}

/// Writes decisions without blocking on the disk.
#[derive(Debug)]
pub(crate) struct DecisionLog {
    lines: Option<NonBlocking>,
    /// Whether the last write of a file failed. Absent: there are no files.
    is_failing: Option<Arc<AtomicBool>>,
    with_arguments: bool,
}

impl DecisionLog {
    /// Opens the configured log. At shutdown it is flushed once calls have ended, or the drain
    /// timeout has passed.
    pub(crate) fn open(
        config: &DecisionLogConfig,
        service: &ServiceBuilder,
    ) -> Result<Self, DecisionLogError> {
        // Decisions are never dropped: when the buffer is full, the writer blocks.
        let builder = || NonBlockingBuilder::default().lossy(false).thread_name("decisions");
        let mut is_failing = None;
        let lines = match &config.decision_log {
            None => None,
            Some(path) if path.as_os_str() == "-" => Some(builder().finish(std::io::stdout())),
            Some(folder) => {
                let file = DailyFiles::open(folder, config.decision_log_days)
                    .map_err(|source| DecisionLogError { folder: folder.clone(), source })?;
                is_failing = Some(file.is_failing());
                Some(builder().finish(file))
            }
        };
        let lines = lines.map(|(lines, writer)| {
            service.on_drained(flush(writer));
            lines
        });
        Ok(Self { lines, is_failing, with_arguments: config.decision_log_arguments })
    }

    /// Tells whether the files cannot be written. `None`: there are no files.
    pub(crate) fn is_failing(&self) -> Option<impl Fn() -> bool + Send + use<>> {
        let is_failing = self.is_failing.clone()?;
        Some(move || is_failing.load(Ordering::Relaxed))
    }

    /// Records a decision in the service's log and in the decision log.
    pub(crate) fn write(&self, entry: &DecisionEntry<'_>) {
        let DecisionEntry { request_id, caller_request_id, kind, item, decision, revision, .. } =
            entry;
        let outcome = decision.outcome.as_str();
        DECISIONS.with([kind.as_str_name().into(), outcome.into()]).increment(1);
        log_call!(
            LoggedCaller::new(&entry.identity.principal, entry.actor),
            %request_id,
            caller_request_id = caller_request_id.map(RequestId::as_str),
            item = item.name,
            operation = kind.as_str_name(),
            outcome,
            missing_scopes = ?entry.missing_scopes,
            policy_ids = ?decision.policy_ids,
            shadow = decision.shadow.as_ref().map(tracing::field::debug),
            policy_revision = revision,
            "decision"
        );
        let Some(lines) = &self.lines else { return };
        let line = serde_json::to_vec(&self.record(entry)).map(|mut line| {
            line.push(b'\n');
            line
        });
        // One write per line, so lines of several threads do not interleave.
        let written =
            line.map_err(std::io::Error::from).and_then(|line| lines.clone().write_all(&line));
        if let Err(error) = written {
            DECISION_LOG_ERRORS.get().increment(1);
            tracing::error!(%error, "cannot write to the decision log");
        }
    }

    fn record(&self, entry: &DecisionEntry<'_>) -> DecisionRecord {
        let DecisionEntry { identity, item, arguments, decision, .. } = entry;
        let pb::Principal { issuer, subject, client_id, tenant, scopes, .. } = &identity.principal;
        let recorded = arguments.filter(|_| self.with_arguments);
        DecisionRecord {
            time: Timestamp::now().to_string(),
            request_id: entry.request_id.to_string(),
            caller_request_id: entry.caller_request_id.map(ToString::to_string),
            trace_id: trace::current_id().unwrap_or_default(),
            issuer: issuer.clone(),
            subject: subject.clone(),
            client_id: client_id.clone(),
            tenant: tenant.clone(),
            groups: identity.groups.clone(),
            roles: identity.roles.clone(),
            email: identity.email.clone(),
            mfa: identity.mfa,
            workload: identity.workload,
            scopes: scopes.clone(),
            actor: entry.actor.cloned(),
            operation: entry.kind.as_str_name().to_owned(),
            item: item.name.clone(),
            service: item.service.clone(),
            rpc: item.rpc.clone(),
            argument_digest: arguments.map(digest),
            arguments: recorded.and_then(|arguments| serde_json::from_slice(arguments).ok()),
            arguments_redacted: recorded.is_some() && entry.redacted,
            outcome: decision.outcome,
            missing_scopes: entry.missing_scopes.to_vec(),
            policy_ids: decision.policy_ids.clone(),
            shadow: decision.shadow.as_ref().map(|shadow| ShadowRecord {
                outcome: shadow.outcome,
                policy_ids: shadow.policy_ids.clone(),
            }),
            policy_revision: entry.revision.to_owned(),
            latency_us: u64::try_from(entry.took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// Waits until all lines are written, for about a second at most. Later writes fail.
async fn flush(writer: WorkerGuard) {
    if let Err(error) = tokio::task::spawn_blocking(move || drop(writer)).await {
        tracing::error!(%error, "cannot flush the decision log");
    }
}

fn digest(arguments: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log was flushed after the last call: never, when the drain deadline passed first.
    #[tokio::test(start_paused = true)]
    async fn the_log_is_flushed_at_shutdown_while_a_call_is_in_flight() {
        let folder = tempfile::tempdir().unwrap();
        let config = DecisionLogConfig {
            decision_log: Some(folder.path().to_owned()),
            decision_log_days: 1,
            ..DecisionLogConfig::default()
        };
        let service = ServiceBuilder::new();
        let log = DecisionLog::open(&config, &service).unwrap();
        let lines = log.lines.as_ref().unwrap();
        lines.clone().write_all(b"{}\n").unwrap();
        // Dropping it stops the service.
        drop(service);
        let mut is_flushed = false;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            is_flushed = lines.clone().write_all(b"late\n").is_err();
            if is_flushed {
                break;
            }
        }
        assert!(is_flushed, "the writer has ended");
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert!(std::fs::read_to_string(file.path()).unwrap().starts_with("{}\n"));
    }
}
