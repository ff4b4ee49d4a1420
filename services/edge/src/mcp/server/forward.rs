//! Forwards messages for calls of a session that run on another replica.

use std::sync::Arc;

use serde_json::Value;

use super::{Admission, McpServer, Refusal, may_perform};
use crate::mcp::{
    replicas::{RemoteItem, ReplicaBus},
    session::SessionId,
};

impl McpServer {
    /// Forwards a client's response to the replica whose call waits for it. It has no effect if no
    /// call does.
    ///
    /// # Errors
    /// When the client may not make that call, or the other replica does not confirm.
    pub(super) async fn forward_response(
        &self,
        session: SessionId,
        id: &Value,
        response: Result<Value, Value>,
        admission: &Admission,
    ) -> Result<(), Refusal> {
        let Some((replicas, id)) = self.replicas.as_ref().zip(id.as_i64()) else { return Ok(()) };
        let item = RemoteItem::Response(session, id, response);
        forward(replicas, &item, admission).await
    }

    /// Cancels a request that runs on another replica, in the background: most clients cancel
    /// requests that have already ended.
    pub(super) fn forward_cancellation(
        &self,
        session: SessionId,
        id: Value,
        admission: Arc<Admission>,
    ) {
        let Some(replicas) = self.replicas.clone() else { return };
        let item = RemoteItem::Cancellation(session, id);
        self.handler.tasks.spawn_call(async move {
            if let Err(refusal) = forward(&replicas, &item, &admission).await {
                refusal.record(&admission.context.request_id);
            }
        });
    }
}

/// Responding to the requests of a call, or cancelling it, needs the permission to make the call.
async fn forward(
    replicas: &ReplicaBus,
    item: &RemoteItem,
    admission: &Admission,
) -> Result<(), Refusal> {
    let Some(location) = replicas.find(item).await? else { return Ok(()) };
    match &location.operation {
        Some(operation) if may_perform(admission, operation).await? => {
            replicas.forward(&location, item).await
        }
        _ => Ok(()),
    }
}
