//! Changes of resources, for whoever subscribes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_sdk::{CallContext, RequestId};
use rmcp::model::ResourceUpdatedNotificationParam;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::{
    events::Event,
    session::{Session, Slot},
    wire,
};
use crate::{
    admission::authorizer::{Lease, Reauthorizer},
    admission::{Admission, Watch, cut},
    grpc::upstream,
    refusal::Refusal,
};

pub(super) const UPDATED: &str = "notifications/resources/updated";
/// Before a watch that broke is begun again, and at most when it breaks again and again.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// How long one watch may last before its caller is authorized anew.
const WATCH_TIMEOUT: Duration = Duration::from_secs(600);

/// Watches one resource for a session, as long as its caller may, the session lasts and has it watched.
pub(super) fn in_session(
    session: &Arc<Session>,
    admission: &Arc<Admission>,
    watch: &Watch,
    ending: tokio_util::sync::CancellationToken,
    slot: Slot,
) {
    let again = admission.again.of(Arc::clone(&watch.call.operation));
    let mut lease = Lease::new(vec![again.clone()], watch.call.epoch, admission.grant.expires_at);
    let (session, watch) = (Arc::downgrade(session), watch.clone());
    let message =
        wire::notification(UPDATED, Some(&ResourceUpdatedNotificationParam::new(&watch.uri)));
    let (request_id, span) = (admission.context.request_id.clone(), admission.span.clone());
    let following = async move {
        let _slot = slot;
        let changed = || {
            let event = Event::new(message.clone(), Some(again.clone()));
            session.upgrade().into_iter().for_each(|session| session.notify(event.clone()));
        };
        tokio::select! {
            () = ending.cancelled() => {}
            () = follow(&request_id, &watch, &again, changed) => {}
            () = async { while lease.renew().await.is_ok() {} } => {
                tracing::info!(uri = cut(&watch.uri), "a watch is no longer allowed");
            }
        }
    };
    tokio::spawn(following.instrument(span));
}

/// Watches one resource in its caller's name and tells of each change, until the caller may no longer. A watch
/// that breaks is begun again, and counts as a change: nobody knows what was missed.
pub(super) async fn follow(
    request_id: &RequestId,
    watch: &Watch,
    again: &Reauthorizer,
    changed: impl Fn(),
) {
    // INVARIANT: a watch asks its client nothing, so its token came with the decision.
    let Some(mut token) = watch.call.token.clone() else { return };
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let status = once(request_id, watch, &token, &changed).await;
        tracing::debug!(uri = cut(&watch.uri), code = ?status.code(), "a watch ended");
        if is_final(status.code()) {
            return;
        }
        tokio::time::sleep(pause).await;
        // One that breaks at once is begun again ever more seldom.
        pause = if began.elapsed() < PAUSE_MAX { (2 * pause).min(PAUSE_MAX) } else { PAUSE };
        token = match again.ask().await.and_then(|allowed| allowed.token()) {
            Ok(token) => token,
            Err(Refusal::AuthUnavailable | Refusal::Unverified) => continue,
            Err(refusal) => {
                tracing::info!(
                    uri = cut(&watch.uri),
                    reason = refusal.word(),
                    "a watch is no longer allowed"
                );
                return;
            }
        };
        changed();
    }
}

/// Whether a watch that ended so would end so again.
fn is_final(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented)
}

/// Watches until the stream ends, and says why it did.
async fn once(
    request_id: &RequestId,
    watch: &Watch,
    token: &SecretString,
    changed: impl Fn(),
) -> Status {
    let context = CallContext::new(request_id.clone(), WATCH_TIMEOUT);
    let (target, message) = (&watch.item.target, &watch.call.message);
    let mut answering = match target.begin(&context, token.expose_secret(), message).await {
        Ok(answering) => answering,
        Err(status) => return status,
    };
    loop {
        match answering.next().await {
            Ok(upstream::Event::Result(_)) => changed(),
            Ok(_) => {}
            Err(status) => return status,
        }
    }
}

/// The URI that a request names.
pub(super) fn uri(params: &Value) -> &str {
    params.get("uri").and_then(Value::as_str).unwrap_or_default()
}
