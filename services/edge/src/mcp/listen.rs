//! `subscriptions/listen` of the stateless revision, and notifications of catalog changes for
//! sessions.

use std::sync::Arc;

use bytes::Bytes;
use drawbridge_runtime::RequestId;
use futures::{StreamExt as _, stream::FuturesUnordered};
use rmcp::model::SubscriptionFilter;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    events::{EventStream, StreamEvent},
    session::SessionRegistry,
    watch::{self, UPDATED},
    wire,
};
use crate::{
    admitted::ResourceWatch,
    authorizer::Reauthorizer,
    catalog::{CatalogRevision, Catalogs},
};

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";

/// The notifications for the lists that have changed.
fn change_notifications(
    before: CatalogRevision,
    now: CatalogRevision,
) -> impl Iterator<Item = &'static str> {
    let changes = [
        (before.tools != now.tools).then_some(TOOLS_CHANGED),
        (before.resources != now.resources).then_some(RESOURCES_CHANGED),
        (before.prompts != now.prompts).then_some(PROMPTS_CHANGED),
    ];
    changes.into_iter().flatten()
}

/// Notifies all sessions that have a subscriber, until the edge stops.
pub(super) async fn notify_sessions(
    sessions: Arc<SessionRegistry>,
    catalogs: Arc<Catalogs>,
    stopping: CancellationToken,
) {
    let mut changed = catalogs.subscribe();
    let mut before = *changed.borrow_and_update();
    while let Some(Ok(())) = stopping.run_until_cancelled(changed.changed()).await {
        let now = *changed.borrow_and_update();
        for method in change_notifications(before, now) {
            let message = wire::notification(method, None::<&Value>);
            sessions.notify(&StreamEvent::new(message, None));
        }
        before = now;
    }
}

/// The subscription of one `subscriptions/listen` request.
pub(super) struct Subscription {
    id: Value,
    filter: SubscriptionFilter,
    stream: Arc<EventStream>,
}

impl Subscription {
    /// The subscription of the request `id`. `None`: its parameters are invalid.
    pub(super) fn new(id: &Value, params: &Value, stream: &Arc<EventStream>) -> Option<Self> {
        let filter: SubscriptionFilter =
            serde_json::from_value(params.get("notifications")?.clone()).ok()?;
        // The acknowledgement leaves out what was not requested.
        let filter = filter.intersection(&filter);
        Some(Self { id: id.clone(), filter, stream: Arc::clone(stream) })
    }

    /// Acknowledges the subscription, and sends notifications until a watch ends: after that, the
    /// client would miss changes of that resource.
    pub(super) async fn run(
        self,
        request_id: &RequestId,
        reauthorizer: &Reauthorizer,
        watches: &[ResourceWatch],
        catalogs: &Catalogs,
    ) {
        let accepted = serde_json::to_value(&self.filter).unwrap_or_default();
        self.notify(ACKNOWLEDGED, json!({ "notifications": accepted }));
        let mut watching: FuturesUnordered<_> = watches
            .iter()
            .map(|watch| {
                let reauthorizer = reauthorizer.for_operation(Arc::clone(&watch.call.operation));
                let changed = || self.notify(UPDATED, json!({ "uri": watch.uri }));
                async move { watch::follow(request_id, watch, &reauthorizer, changed).await }
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
            for method in change_notifications(before, now) {
                let is_wanted = match method {
                    TOOLS_CHANGED => self.filter.tools_list_changed,
                    RESOURCES_CHANGED => self.filter.resources_list_changed,
                    _ => self.filter.prompts_list_changed,
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
        self.stream
            .push_unless_pending(StreamEvent::new(wire::notification(method, Some(&params)), None));
    }

    /// The final result, which ends the subscription.
    pub(super) fn result(&self) -> Bytes {
        let meta = json!({ SUBSCRIPTION_ID: self.id });
        let result = json!({ "resultType": "complete", "_meta": meta });
        json!({ "jsonrpc": "2.0", "id": self.id, "result": result }).to_string().into()
    }
}
