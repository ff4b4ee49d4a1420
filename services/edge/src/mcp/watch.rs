//! Change notifications for subscribed resources.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_runtime::{RequestId, ServiceTasks, backoff::ReconnectDelays};
use drawbridge_transport::{CallContext, client_span};
use rmcp::model::ResourceUpdatedNotificationParam;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::{
    events::StreamEvent,
    session::{Session, Slot},
    wire,
};
use crate::{
    admitted::{Admission, ResourceWatch},
    authorizer::{Reauthorizer, StreamLease},
    grpc::upstream,
    refusal::Refusal,
    truncate::truncate,
};

pub(super) const UPDATED: &str = "notifications/resources/updated";
/// The delay before a broken watch is restarted, and its maximum under repeated failures.
const RETRY_DELAY_FIRST: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(16);

/// Watches one resource for a session, until the caller loses its permission, the session ends or
/// it unsubscribes.
pub(super) fn spawn_in_session(
    tasks: &ServiceTasks,
    session: &Arc<Session>,
    admission: &Arc<Admission>,
    watch: &ResourceWatch,
    cancelled: tokio_util::sync::CancellationToken,
    slot: Slot,
) {
    let reauthorizer = admission.reauthorizer.for_operation(Arc::clone(&watch.call.operation));
    let mut lease =
        StreamLease::new(vec![reauthorizer.clone()], watch.call.epoch, admission.grant.expires_at);
    let (session, watch) = (Arc::downgrade(session), watch.clone());
    let message =
        wire::notification(UPDATED, Some(&ResourceUpdatedNotificationParam::new(&watch.uri)));
    let (request_id, span) = (admission.context.request_id.clone(), admission.span.clone());
    let following = async move {
        let _slot = slot;
        let changed = || {
            let event = StreamEvent::new(message.clone(), Some(reauthorizer.clone()));
            session.upgrade().into_iter().for_each(|session| session.notify(event.clone()));
        };
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = follow(&request_id, &watch, &reauthorizer, changed) => {}
            () = async { while lease.renew().await.is_ok() {} } => {
                tracing::info!(uri = truncate(&watch.uri), "a watch is no longer allowed");
            }
        }
    };
    tasks.spawn_until_stopping(following.instrument(span));
}

/// Watches one resource on behalf of its caller and reports each change, until the caller loses its
/// permission. A broken watch is restarted and counts as a change, because changes may have been
/// missed.
pub(super) async fn follow(
    request_id: &RequestId,
    watch: &ResourceWatch,
    reauthorizer: &Reauthorizer,
    changed: impl Fn(),
) {
    // INVARIANT: a watch requests no input, so the decision included its token.
    let Some(mut token) = watch.call.token.clone() else { return };
    let mut delays = ReconnectDelays::new(RETRY_DELAY_FIRST, RETRY_DELAY_MAX);
    loop {
        let began = Instant::now();
        let status = watch_once(request_id, watch, &token, &changed).await;
        tracing::debug!(uri = truncate(&watch.uri), code = ?status.code(), "a watch ended");
        if is_final(status.code()) {
            return;
        }
        // A watch that breaks soon after its start backs off exponentially.
        delays.wait_after(began.elapsed()).await;
        token = match reauthorizer.reauthorize().await.and_then(|allowed| allowed.token()) {
            Ok(token) => token,
            Err(Refusal::AuthUnavailable | Refusal::Unverified) => continue,
            Err(refusal) => {
                tracing::info!(
                    uri = truncate(&watch.uri),
                    reason = refusal.reason(),
                    "a watch is no longer allowed"
                );
                return;
            }
        };
        changed();
    }
}

/// Whether a restarted watch would end in the same way.
fn is_final(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented)
}

/// Watches until the stream ends, and returns its status.
async fn watch_once(
    request_id: &RequestId,
    watch: &ResourceWatch,
    token: &SecretString,
    changed: impl Fn(),
) -> Status {
    let context = CallContext::new(request_id.clone(), watch.item.target.timeout);
    let (target, message) = (&watch.item.target, &watch.call.message);
    let span = client_span(target.rpc());
    let mut response = match target.begin(span, &context, token.expose_secret(), message).await {
        Ok(response) => response,
        Err(status) => return status,
    };
    loop {
        match response.next().await {
            Ok(upstream::CallEvent::Result(_)) => changed(),
            Ok(_) => {}
            Err(status) => return status,
        }
    }
}

/// The URI in the parameters of a request.
pub(super) fn uri(params: &Value) -> &str {
    params.get("uri").and_then(Value::as_str).unwrap_or_default()
}
