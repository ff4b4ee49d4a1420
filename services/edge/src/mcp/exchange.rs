//! What a request's work knows of its client, and how it reaches it before the answer.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::mcp::v1 as pb;
use rmcp::model::{ClientCapabilities, LoggingLevel, ProgressToken};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    events::EventStream,
    interaction,
    revision::{Revision, meta},
    session::Session,
    wire,
};
use crate::admission::authorizer::Reauthorizer;

/// A request's client.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) revision: Revision,
    /// What it can be asked.
    pub(super) client: pb::ClientCapabilities,
    pub(super) progress: Option<ProgressToken>,
    /// The level of the log lines that it wants.
    level: Option<LoggingLevel>,
    pub(super) session: Option<Arc<Session>>,
    pub(super) stream: Arc<EventStream>,
    /// Whether it takes messages before the answer.
    takes_streams: bool,
    /// Cancelled when the client says so.
    pub(super) cancelled: CancellationToken,
}

/// The client did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("in time")]
    Late,
    #[error("but with an error: {0}")]
    Error(Value),
}

impl Exchange {
    /// The client of a request without a session.
    pub(super) fn direct(
        revision: Revision,
        params: &Value,
        stream: Arc<EventStream>,
        takes_streams: bool,
    ) -> Self {
        let meta = meta(params);
        let client: Option<ClientCapabilities> = meta.client_capabilities();
        let client = interaction::capabilities(client.as_ref());
        let client = match revision {
            Revision::Stateless => client,
            _ => interaction::by_error(client, revision),
        };
        let level = match revision {
            // The stateless revision names a level with each request, or gets no lines (SEP-2575).
            Revision::Stateless => meta.log_level(),
            _ => Some(LoggingLevel::Info),
        };
        let (progress, cancelled) = (meta.get_progress_token(), CancellationToken::new());
        Self { revision, client, progress, level, session: None, stream, takes_streams, cancelled }
    }

    /// The client of a request in a session.
    pub(super) fn in_session(
        session: Arc<Session>,
        params: &Value,
        stream: Arc<EventStream>,
        takes_streams: bool,
        cancelled: CancellationToken,
    ) -> Self {
        let (revision, progress) = (session.revision, meta(params).get_progress_token());
        let client = session.client();
        let client = if takes_streams { client } else { interaction::by_error(client, revision) };
        Self {
            revision,
            client,
            progress,
            level: None,
            session: Some(session),
            stream,
            takes_streams,
            cancelled,
        }
    }

    pub(super) fn is_stateless(&self) -> bool {
        self.revision == Revision::Stateless
    }

    /// Whether the client can be asked during its request.
    pub(super) fn asks(&self) -> bool {
        self.takes_streams && self.session.is_some()
    }

    /// Whether the client wants log lines of this level.
    pub(super) fn wants(&self, level: LoggingLevel) -> bool {
        let wanted = self.session.as_ref().map(|session| session.level()).or(self.level);
        self.takes_streams && wanted.is_some_and(|wanted| level as u8 >= wanted as u8)
    }

    /// The token by which the client wants to hear of progress.
    pub(super) fn progress_token(&self) -> Option<&ProgressToken> {
        self.progress.as_ref().filter(|_| self.takes_streams)
    }

    /// Tells the client something before the answer.
    pub(super) async fn notify(&self, method: &str, params: &impl Serialize) {
        self.stream.push(wire::notification(method, Some(params))).await;
    }

    /// Asks the client, on the stream of the request that needs the answer.
    pub(super) async fn ask(
        &self,
        needs: Reauthorizer,
        method: &str,
        params: Option<&Value>,
        within: Duration,
    ) -> Result<Value, Unanswered> {
        let session = self.session.as_ref().ok_or(Unanswered::Late)?;
        let question = session.question(needs);
        self.stream.push(wire::request(question.id, method, params)).await;
        match question.answer(within).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(Unanswered::Error(error)),
            None => Err(Unanswered::Late),
        }
    }
}
