//! Writes the decision log.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use drawbridge_sdk::{RequestId, ServiceBuilder, identity::Actor, trace};
use jiff::Timestamp;
use metrics::counter;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::DropGuard;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::{DecisionRecord, ShadowRecord, files::DailyFiles};
use crate::{Identity, policy::Outcome};

/// Where decisions are written down, and how much of them.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Decision log")]
pub struct DecisionLogConfig {
    /// Write every decision as a line of JSON: to standard output (`-`), or into a file for each day in this folder.
    /// The user of the process alone may read the files, and a folder that is made for them.
    #[arg(long, value_name = "FOLDER|-")]
    pub decision_log: Option<PathBuf>,

    /// Keep so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub decision_log_days: usize,

    /// Write down arguments too, without those that are sensitive.
    #[arg(long, requires = "decision_log")]
    pub decision_log_arguments: bool,
}

/// The decision log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the decision log in {}", folder.display())]
pub struct DecisionLogError {
    folder: PathBuf,
    source: io::Error,
}

/// A decision, to be written down.
pub(crate) struct Decided<'a> {
    /// By which id it is recorded.
    pub(crate) request_id: &'a RequestId,
    /// What an internal caller calls the request.
    pub(crate) caller_request_id: Option<&'a RequestId>,
    pub(crate) identity: &'a Identity,
    /// Who calls in their name.
    pub(crate) actor: Option<&'a Actor>,
    pub(crate) kind: Kind,
    pub(crate) item: &'a pb::CatalogItem,
    /// The arguments, without those that are sensitive.
    pub(crate) arguments: Option<&'a [u8]>,
    /// Whether some were.
    pub(crate) redacted: bool,
    pub(crate) outcome: &'a Outcome,
    /// Scopes that the item asks for, when the token lacks one of them.
    pub(crate) missing_scopes: &'a [String],
    pub(crate) revision: &'a str,
    pub(crate) took: Duration,
}

/// Writes decisions down, without making anybody wait for the disk.
#[derive(Debug)]
pub(crate) struct DecisionLog {
    lines: Option<(NonBlocking, DropGuard)>,
    with_arguments: bool,
}

impl DecisionLog {
    /// Opens the log that the config asks for. When the service stops, what was decided is written once calls have ended,
    /// or some seconds later: a call that lasts longer does not keep it from the disk.
    pub(crate) fn open(
        config: &DecisionLogConfig,
        starting: &ServiceBuilder,
    ) -> Result<Self, DecisionLogError> {
        // A decision is never lost for want of room: whoever is too fast waits.
        let builder = || NonBlockingBuilder::default().lossy(false).thread_name("decisions");
        let lines = match &config.decision_log {
            None => None,
            Some(path) if path.as_os_str() == "-" => Some(builder().finish(std::io::stdout())),
            Some(folder) => {
                let file = DailyFiles::open(folder, config.decision_log_days)
                    .map_err(|source| DecisionLogError { folder: folder.clone(), source })?;
                Some(builder().finish(file))
            }
        };
        let lines = lines.map(|(lines, writer)| (lines, starting.on_drained(flush(writer))));
        Ok(Self { lines, with_arguments: config.decision_log_arguments })
    }

    /// Tells of a decision, in the service's log and in this one.
    pub(crate) fn write(&self, decided: &Decided<'_>) {
        let Decided { request_id, caller_request_id, kind, item, outcome, revision, .. } = decided;
        let pb::Principal { issuer, subject, client_id, tenant, .. } = &decided.identity.principal;
        counter!("auth_decisions_total", "operation" => kind.as_str_name(), "outcome" => outcome.answer.as_str())
            .increment(1);
        tracing::info!(
            %request_id,
            caller_request_id = caller_request_id.map(RequestId::as_str),
            issuer, subject, client_id, tenant,
            actor = decided.actor.map(|actor| actor.sub.as_str()),
            item = item.name,
            operation = kind.as_str_name(),
            outcome = outcome.answer.as_str(),
            missing_scopes = ?decided.missing_scopes,
            policy_ids = ?outcome.policy_ids,
            shadow = outcome.shadow.as_ref().map(tracing::field::debug),
            policy_revision = revision,
            "decision"
        );
        let Some((lines, _)) = &self.lines else { return };
        let line = serde_json::to_vec(&self.record(decided)).map(|mut line| {
            line.push(b'\n');
            line
        });
        // A line is one write, so lines of several threads do not mix.
        let written =
            line.map_err(std::io::Error::from).and_then(|line| lines.clone().write_all(&line));
        if let Err(error) = written {
            counter!("auth_decision_log_errors_total").increment(1);
            tracing::error!(%error, "a decision could not be written down");
        }
    }

    fn record(&self, decided: &Decided<'_>) -> DecisionRecord {
        let Decided { identity, item, arguments, outcome, .. } = decided;
        let pb::Principal { issuer, subject, client_id, tenant, scopes, .. } = &identity.principal;
        let kept = arguments.filter(|_| self.with_arguments);
        DecisionRecord {
            time: Timestamp::now().to_string(),
            request_id: decided.request_id.to_string(),
            caller_request_id: decided.caller_request_id.map(ToString::to_string),
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
            actor: decided.actor.cloned(),
            operation: decided.kind.as_str_name().to_owned(),
            item: item.name.clone(),
            service: item.service.clone(),
            rpc: item.rpc.clone(),
            argument_digest: arguments.map(digest),
            arguments: kept.and_then(|arguments| serde_json::from_slice(arguments).ok()),
            arguments_redacted: kept.is_some() && decided.redacted,
            outcome: outcome.answer,
            missing_scopes: decided.missing_scopes.to_vec(),
            policy_ids: outcome.policy_ids.clone(),
            shadow: outcome.shadow.as_ref().map(|shadow| ShadowRecord {
                outcome: shadow.answer,
                policy_ids: shadow.policy_ids.clone(),
            }),
            policy_revision: decided.revision.to_owned(),
            latency_us: u64::try_from(decided.took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// Waits until everything is written, for about a second at most. Further lines are errors.
async fn flush(writer: WorkerGuard) {
    if let Err(error) = tokio::task::spawn_blocking(move || drop(writer)).await {
        tracing::error!(%error, "the decision log could not be flushed");
    }
}

fn digest(arguments: &[u8]) -> String {
    Sha256::digest(arguments).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log was flushed when the last call had ended: never, when the drain deadline passed first.
    #[tokio::test(start_paused = true)]
    async fn the_log_is_flushed_at_stop_though_a_call_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let config = DecisionLogConfig {
            decision_log: Some(folder.path().to_owned()),
            decision_log_days: 1,
            ..DecisionLogConfig::default()
        };
        let starting = ServiceBuilder::new();
        let log = DecisionLog::open(&config, &starting).unwrap();
        let (lines, _in_use) = log.lines.as_ref().unwrap();
        lines.clone().write_all(b"{}\n").unwrap();
        // It stops what had begun.
        drop(starting);
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
