//! Hears from auth that somebody is revoked.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drawbridge_proto::auth::v1::{
    IntrospectRequest, WatchRequest, auth_service_client::AuthServiceClient,
};
use secrecy::ExposeSecret as _;
use tokio::time::{sleep, timeout};
use tonic::{Status, transport::Channel};

use super::{sessions::Sessions, source::CALL_TIMEOUT};
use crate::{RequestId, call::CallContext};

/// Auth speaks once a second. For how long its silence is borne.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// About so many sessions auth is asked at once.
const TOKENS_AT_ONCE: usize = 256;
/// Before auth is listened to again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Follows auth's revocations for ever. What somebody has who is revoked is given up. While auth is not heard, leases go
/// on: they end by themselves.
pub(super) async fn follow(sessions: Arc<Sessions>, auth: AuthServiceClient<Channel>) {
    let mut known = None;
    loop {
        let status = hear(&sessions, &auth, &mut known).await;
        tracing::debug!(code = ?status.code(), message = status.message(), "auth's revocations are not heard");
        sleep(LISTEN_PAUSE).await;
    }
}

/// Follows until auth falls silent.
async fn hear(
    sessions: &Arc<Sessions>,
    auth: &AuthServiceClient<Channel>,
    known: &mut Option<u64>,
) -> Status {
    let hearing = async {
        let mut listening = auth.clone();
        let mut words =
            in_time(ANSWER_TIMEOUT, listening.watch(WatchRequest {})).await?.into_inner();
        while let Some(word) = in_time(SILENCE_MAX, words.message()).await? {
            if *known == Some(word.revocations) {
                continue;
            }
            review(sessions, auth).await?;
            *known = Some(word.revocations);
            // A login that had begun is not seen yet.
            let (sessions, auth) = (Arc::clone(sessions), auth.clone());
            Arc::clone(&sessions).beside(async move {
                sleep(CALL_TIMEOUT).await;
                if let Err(status) = review(&sessions, &auth).await {
                    tracing::warn!(code = ?status.code(), message = status.message(), "cannot look for the revoked");
                }
            });
        }
        Err(Status::unavailable("auth has ended its stream"))
    };
    hearing.await.unwrap_or_else(|status: Status| status)
}

/// Asks whose sessions are those of somebody who is revoked, and gives these up.
async fn review(sessions: &Sessions, auth: &AuthServiceClient<Channel>) -> Result<(), Status> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = since.try_into().unwrap_or(i64::MAX);
    for some in sessions.opened_with().chunks(TOKENS_AT_ONCE) {
        let transaction_tokens =
            some.iter().map(|(_, token)| token.expose_secret().to_owned()).collect();
        let context = CallContext::new(RequestId::generate(), ANSWER_TIMEOUT);
        let request = context.outgoing(IntrospectRequest { transaction_tokens });
        let active = auth.clone().introspect(request).await?.into_inner().active;
        if active.len() != some.len() {
            return Err(Status::internal("auth has not answered for each token"));
        }
        for ((principal, _), _) in some.iter().zip(active).filter(|(_, active)| !active) {
            sessions.close_to(principal, since).await;
        }
    }
    Ok(())
}

async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("auth says nothing")))
}
