//! Changes of resources, for whoever subscribes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drawbridge_sdk::CallContext;
use rmcp::{
    RoleServer,
    model::ResourceUpdatedNotificationParam,
    service::{Peer, SubscriptionSink},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tracing::Instrument as _;

use crate::{
    authorizer::Authorizer,
    gate::{Admission, Watch},
    refusal::Refusal,
    upstream::Event,
};

/// How many resources one session may watch.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Before a watch that broke is begun again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one watch may last before its caller is authorized anew.
const WATCH_TIMEOUT: Duration = Duration::from_secs(600);

/// What one session watches, by URI. A watch ends with its guard.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions(Arc<Mutex<HashMap<String, DropGuard>>>);

impl Subscriptions {
    /// Makes room for a watch; nothing when there is none. The watch ends when the token is cancelled.
    pub(super) fn add(&self, uri: &str) -> Option<CancellationToken> {
        let mut subscriptions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if subscriptions.len() >= SUBSCRIPTIONS_MAX && !subscriptions.contains_key(uri) {
            return None;
        }
        let ending = CancellationToken::new();
        subscriptions.insert(uri.to_owned(), ending.clone().drop_guard());
        Some(ending)
    }

    pub(super) fn remove(&self, uri: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uri);
    }
}

/// Who is told of changes.
#[derive(Clone, Copy)]
pub(super) enum Listener<'a> {
    /// A session (older revisions).
    Session(&'a Peer<RoleServer>),
    /// A subscription (2026-07-28).
    Subscriber(&'a SubscriptionSink),
}

/// The listener has gone.
struct Gone;

impl Listener<'_> {
    async fn tell(self, uri: &str) -> Result<(), Gone> {
        match self {
            Self::Session(peer) => {
                let changed = ResourceUpdatedNotificationParam::new(uri);
                peer.notify_resource_updated(changed).await.map_err(|_| Gone)
            }
            Self::Subscriber(sink) => sink.notify_resource_updated(uri).await.map_err(|_| Gone),
        }
    }
}

/// Watches one resource in its caller's name and tells of each change, until the caller may no longer or the
/// listener has gone. A watch that breaks is begun again, and counts as a change: nobody knows what was missed.
pub(super) async fn follow(
    authorizer: &Authorizer,
    admission: &Admission,
    watch: &Watch,
    listener: Listener<'_>,
) {
    // INVARIANT: a watch asks its client nothing, so its token came with the decision.
    let Some(mut token) = watch.call.token.clone() else { return };
    loop {
        let watching =
            once(authorizer, admission, watch, &token, listener).instrument(admission.span.clone());
        match watching.await {
            Ok(status) => tracing::debug!(uri = watch.uri, code = ?status.code(), "a watch ended"),
            Err(Gone) => return,
        }
        tokio::time::sleep(PAUSE).await;
        token = match authorize(authorizer, admission, watch).await {
            Ok(token) => token,
            Err(Refusal::AuthUnavailable | Refusal::Unverified) => continue,
            Err(refusal) => {
                tracing::info!(uri = watch.uri, reason = refusal.word(), "a watch is no longer allowed");
                return;
            }
        };
        if listener.tell(&watch.uri).await.is_err() {
            return;
        }
    }
}

/// Watches until the stream ends or the caller may no longer, and says why it did.
async fn once(
    authorizer: &Authorizer,
    admission: &Admission,
    watch: &Watch,
    token: &SecretString,
    listener: Listener<'_>,
) -> Result<Status, Gone> {
    let context = CallContext::new(admission.context.request_id.clone(), WATCH_TIMEOUT);
    let (target, message) = (&watch.item.target, &watch.call.message);
    let mut answering = match target.begin(&context, token.expose_secret(), message).await {
        Ok(answering) => answering,
        Err(status) => return Ok(status),
    };
    loop {
        match answering.next().await {
            // Policy may have changed since the watch began, or the token have been revoked.
            Ok(Event::Result(_)) => match authorize(authorizer, admission, watch).await {
                Ok(_) => listener.tell(&watch.uri).await?,
                Err(refusal) => return Ok(Status::permission_denied(refusal.word())),
            },
            Ok(_) => {}
            Err(status) => return Ok(status),
        }
    }
}

async fn authorize(
    authorizer: &Authorizer,
    admission: &Admission,
    watch: &Watch,
) -> Result<Arc<SecretString>, Refusal> {
    let context = CallContext::new(admission.context.request_id.clone(), WATCH_TIMEOUT);
    let operation = watch.call.message.named_in(watch.call.operation.clone());
    authorizer.authorize(&context, &admission.token, &admission.resource, operation).await?.token()
}
