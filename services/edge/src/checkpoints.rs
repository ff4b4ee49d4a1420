//! Checkpoints of the audit log.

use std::sync::Arc;

use drawbridge_audit::{AuditLog, EXCHANGE_PATH};
use drawbridge_runtime::ServiceBuilder;
use drawbridge_transport::{ChannelError, Peers, ReplicaDocuments};
use url::Url;

use crate::Config;

/// Exchanges checkpoints of the audit log with the replicas of auth, so that each log is evidence of
/// the others.
pub(crate) fn exchange(
    config: &Config,
    peers: &Peers,
    audit: &AuditLog,
    builder: &ServiceBuilder,
) -> Result<(), ChannelError> {
    let urls: Vec<Url> = config.auth_urls.iter().map(|url| url.0.clone()).collect();
    let id = config.auth_spiffe_id.clone().or_else(|| peers.sibling("auth"));
    let replicas = Arc::new(ReplicaDocuments::new(peers, &urls, id.as_ref())?);
    let (audit, stopping) = (audit.clone(), builder.stopping());
    let send = move |message| {
        let replicas = Arc::clone(&replicas);
        async move {
            let answers = replicas.post(EXCHANGE_PATH, message).await;
            answers.into_iter().map(|answer| (answer.replica, answer.body)).collect()
        }
    };
    builder.spawn(async move { audit.exchange(send, stopping).await });
    Ok(())
}
