//! What belongs to a call of a session that runs on another replica.

use std::sync::Arc;

use serde_json::Value;

use super::{Admission, Refusal, Server, may};
use crate::mcp::{
    replicas::{Replicas, Subject},
    session::SessionId,
};

impl Server {
    /// Hands a client's answer to the replica whose call asked. An answer for which no call waits has no effect.
    ///
    /// # Errors
    /// When the client may not make that call, or the other replica does not say that it has the answer.
    pub(super) async fn answer_elsewhere(
        &self,
        session: SessionId,
        id: &Value,
        answer: Result<Value, Value>,
        admission: &Admission,
    ) -> Result<(), Refusal> {
        let Some((replicas, id)) = self.replicas.as_ref().zip(id.as_i64()) else { return Ok(()) };
        let subject = Subject::Question(session, id, answer);
        hand_over(replicas, &subject, admission).await
    }

    /// Has a request cancelled that runs on another replica, if one does. Nobody waits for that: most clients cancel
    /// what has ended meanwhile.
    pub(super) fn cancel_elsewhere(
        &self,
        session: SessionId,
        id: Value,
        admission: Arc<Admission>,
    ) {
        let Some(replicas) = self.replicas.clone() else { return };
        let subject = Subject::Running(session, id);
        tokio::spawn(async move {
            if let Err(refusal) = hand_over(&replicas, &subject, &admission).await {
                refusal.record(&admission.context.request_id);
            }
        });
    }
}

/// Only who may make a call may answer what it asks, or cancel it.
async fn hand_over(
    replicas: &Replicas,
    subject: &Subject,
    admission: &Admission,
) -> Result<(), Refusal> {
    let Some(place) = replicas.find(subject).await? else { return Ok(()) };
    match &place.operation {
        Some(operation) if may(admission, operation).await? => {
            replicas.hand_over(&place, subject).await
        }
        _ => Ok(()),
    }
}
