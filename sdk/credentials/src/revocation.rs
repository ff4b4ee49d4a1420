//! Watches auth's revocations and ends the sessions of revoked principals.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drawbridge_proto::auth::v1::{
    IntrospectRequest, IntrospectResponse, WatchRequest, auth_service_client::AuthServiceClient,
    introspect_response::Status as TokenStatus,
};
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, transport::Channel};

use super::{sessions::Sessions, timeouts::CALL_TIMEOUT};
use drawbridge_runtime::{RequestId, backoff::ReconnectDelays};
use drawbridge_transport::CallContext;

/// Auth sends at least one message a second. The stream counts as lost after this time without one.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a response may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many sessions one introspection request covers.
const TOKENS_PER_REQUEST_MAX: usize = 256;

/// Watches auth's revocations forever, and revokes what revoked principals have. While the stream
/// is lost, leases stay valid until they expire.
pub(super) async fn watch(sessions: Arc<Sessions>, auth: AuthServiceClient<Channel>) {
    let mut known = None;
    let mut delays = ReconnectDelays::default();
    loop {
        let began = Instant::now();
        let status = watch_once(&sessions, &auth, &mut known).await;
        let (code, message) = (status.code(), status.message());
        tracing::debug!(?code, detail = message, "the revocation stream from auth is lost");
        delays.wait_after(began.elapsed()).await;
    }
}

/// Watches until the stream is lost.
async fn watch_once(
    sessions: &Arc<Sessions>,
    auth: &AuthServiceClient<Channel>,
    known: &mut Option<u64>,
) -> Status {
    let watching = async {
        let mut client = auth.clone();
        let mut epochs =
            with_timeout(REPLY_TIMEOUT, client.watch(WatchRequest {})).await?.into_inner();
        while let Some(epoch) = with_timeout(HEARTBEAT_TIMEOUT, epochs.message()).await? {
            if *known == Some(epoch.revocations) {
                continue;
            }
            end_revoked(sessions, auth).await?;
            *known = Some(epoch.revocations);
            // A login that was in progress is not listed yet.
            let (sessions, auth) = (Arc::clone(sessions), auth.clone());
            Arc::clone(&sessions).spawn(async move {
                sleep(CALL_TIMEOUT).await;
                if let Err(status) = end_revoked(&sessions, &auth).await {
                    let (code, message) = (status.code(), status.message());
                    tracing::warn!(?code, detail = message, "cannot check for revoked principals");
                }
            });
        }
        Err(Status::unavailable("auth has closed its stream"))
    };
    watching.await.unwrap_or_else(|status: Status| status)
}

/// Introspects the tokens of all sessions, and revokes the sessions of revoked principals. A token
/// that auth does not know is not revoked: the replica that signed it may have restarted.
async fn end_revoked(sessions: &Sessions, auth: &AuthServiceClient<Channel>) -> Result<(), Status> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = since.try_into().unwrap_or(i64::MAX);
    for chunk in sessions.transaction_tokens().chunks(TOKENS_PER_REQUEST_MAX) {
        let transaction_tokens =
            chunk.iter().map(|(_, token)| token.expose_secret().to_owned()).collect();
        let context = CallContext::new(RequestId::generate(), REPLY_TIMEOUT);
        let request = context.outgoing(IntrospectRequest { transaction_tokens });
        let revoked = revoked(auth.clone().introspect(request).await?.into_inner());
        if revoked.len() != chunk.len() {
            return Err(Status::internal("auth did not answer for each token"));
        }
        for ((principal, _), _) in chunk.iter().zip(revoked).filter(|(_, revoked)| *revoked) {
            sessions.mark_revoked(principal, since).await;
        }
    }
    Ok(())
}

/// For each token whether it is revoked. An auth without statuses says of revoked and of unknown
/// tokens that they are not active.
fn revoked(response: IntrospectResponse) -> Vec<bool> {
    if response.statuses.is_empty() {
        return response.active.into_iter().map(|active| !active).collect();
    }
    response.statuses().map(|status| status == TokenStatus::Revoked).collect()
}

async fn with_timeout<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("auth did not respond in time")))
}
