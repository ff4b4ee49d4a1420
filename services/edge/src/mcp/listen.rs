//! `subscriptions/listen` of the stateless revision, and changes of the catalog for sessions.

use std::sync::Arc;

use bytes::Bytes;
use drawbridge_sdk::RequestId;
use futures::{StreamExt as _, stream::FuturesUnordered};
use rmcp::model::SubscriptionFilter;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    events::{Event, EventStream},
    session::Sessions,
    watch::{self, UPDATED},
    wire,
};
use crate::{
    admission::Watch,
    admission::authorizer::Reauthorizer,
    catalog::{Catalogs, Revision},
};

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";

/// Which lists are others now.
fn changes(before: Revision, now: Revision) -> impl Iterator<Item = &'static str> {
    let changes = [
        (before.tools != now.tools).then_some(TOOLS_CHANGED),
        (before.resources != now.resources).then_some(RESOURCES_CHANGED),
        (before.prompts != now.prompts).then_some(PROMPTS_CHANGED),
    ];
    changes.into_iter().flatten()
}

/// Tells all sessions in which somebody listens, until the edge stops.
pub(super) async fn notify_sessions(
    sessions: Arc<Sessions>,
    catalogs: Arc<Catalogs>,
    stopping: CancellationToken,
) {
    let mut changed = catalogs.subscribe();
    let mut before = *changed.borrow_and_update();
    while let Some(Ok(())) = stopping.run_until_cancelled(changed.changed()).await {
        let now = *changed.borrow_and_update();
        for method in changes(before, now) {
            let message = wire::notification(method, None::<&Value>);
            sessions.notify(&Event::new(message, None));
        }
        before = now;
    }
}

/// What a client listens to.
pub(super) struct Subscription {
    id: Value,
    wants: SubscriptionFilter,
    stream: Arc<EventStream>,
}

impl Subscription {
    /// The subscription of the request `id`. None: its parameters are not this method's.
    pub(super) fn new(id: &Value, params: &Value, stream: &Arc<EventStream>) -> Option<Self> {
        let wants: SubscriptionFilter =
            serde_json::from_value(params.get("notifications")?.clone()).ok()?;
        // What is not wanted is not in the acknowledgement, either.
        let wants = wants.intersection(&wants);
        Some(Self { id: id.clone(), wants, stream: Arc::clone(stream) })
    }

    /// Acknowledges the subscription, and tells of changes until a watch ends: then the client would take what it
    /// is not notified of for unchanged.
    pub(super) async fn run(
        self,
        request_id: &RequestId,
        again: &Reauthorizer,
        watches: &[Watch],
        catalogs: &Catalogs,
    ) {
        let accepted = serde_json::to_value(&self.wants).unwrap_or_default();
        self.notify(ACKNOWLEDGED, json!({ "notifications": accepted }));
        let mut watching: FuturesUnordered<_> = watches
            .iter()
            .map(|watch| {
                let again = again.of(Arc::clone(&watch.call.operation));
                let changed = || self.notify(UPDATED, json!({ "uri": watch.uri }));
                async move { watch::follow(request_id, watch, &again, changed).await }
            })
            .collect();
        tokio::select! {
            () = self.notify_lists(catalogs) => {}
            Some(()) = watching.next() => {}
        }
        let (status, result) = (http::StatusCode::OK, self.result());
        self.stream.finish(status, result, None);
    }

    async fn notify_lists(&self, catalogs: &Catalogs) {
        let mut changed = catalogs.subscribe();
        let mut before = *changed.borrow_and_update();
        while changed.changed().await.is_ok() {
            let now = *changed.borrow_and_update();
            for method in changes(before, now) {
                let is_wanted = match method {
                    TOOLS_CHANGED => self.wants.tools_list_changed,
                    RESOURCES_CHANGED => self.wants.resources_list_changed,
                    _ => self.wants.prompts_list_changed,
                };
                if is_wanted == Some(true) {
                    self.notify(method, json!({}));
                }
            }
            before = now;
        }
    }

    fn notify(&self, method: &str, mut params: Value) {
        params["_meta"] = json!({ SUBSCRIPTION_ID: self.id });
        self.stream.push_now(Event::new(wire::notification(method, Some(&params)), None));
    }

    /// The final result, with which the server ends a subscription.
    pub(super) fn result(&self) -> Bytes {
        let meta = json!({ SUBSCRIPTION_ID: self.id });
        let result = json!({ "resultType": "complete", "_meta": meta });
        json!({ "jsonrpc": "2.0", "id": self.id, "result": result }).to_string().into()
    }
}
