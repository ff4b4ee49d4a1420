//! The client of a request: its capabilities, and messages to it before the response.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::mcp::v1 as pb;
use drawbridge_runtime::trace;
use rmcp::model::{ClientCapabilities, LoggingLevel, ProgressToken};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field::Empty};

use super::{
    capabilities,
    events::EventStream,
    revision::{ProtocolRevision, meta},
    session::Session,
    wire,
};
use crate::authorizer::Reauthorizer;

/// A request's client.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) revision: ProtocolRevision,
    /// The input that the client supports.
    pub(super) client: pb::ClientCapabilities,
    pub(super) progress: Option<ProgressToken>,
    /// The least severe level of log messages to send.
    level: Option<LoggingLevel>,
    pub(super) session: Option<Arc<Session>>,
    pub(super) stream: Arc<EventStream>,
    /// Whether the client accepts messages before the response.
    accepts_streams: bool,
    /// Cancelled when the client cancels the request.
    pub(super) cancelled: CancellationToken,
}

/// A request to the client failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientRequestError {
    #[error("the client did not respond in time")]
    Timeout,
    #[error("the client responded with an error: {0}")]
    Rejected(Value),
}

impl Exchange {
    /// The client of a request without a session.
    pub(super) fn without_session(
        revision: ProtocolRevision,
        params: &Value,
        stream: Arc<EventStream>,
        accepts_streams: bool,
    ) -> Self {
        let meta = meta(params);
        let client: Option<ClientCapabilities> = meta.client_capabilities();
        let client = capabilities::client_capabilities(client.as_ref());
        let client = match revision {
            ProtocolRevision::Stateless => client,
            _ => capabilities::without_streams(client, revision),
        };
        let level = match revision {
            // A stateless request without a level receives no log messages (SEP-2575).
            ProtocolRevision::Stateless => meta.log_level(),
            _ => Some(LoggingLevel::Info),
        };
        let (progress, cancelled) = (meta.get_progress_token(), CancellationToken::new());
        Self {
            revision,
            client,
            progress,
            level,
            session: None,
            stream,
            accepts_streams,
            cancelled,
        }
    }

    /// The client of a request in a session.
    pub(super) fn in_session(
        session: Arc<Session>,
        params: &Value,
        stream: Arc<EventStream>,
        accepts_streams: bool,
        cancelled: CancellationToken,
    ) -> Self {
        let (revision, progress) = (session.revision, meta(params).get_progress_token());
        let client = session.client();
        let client =
            if accepts_streams { client } else { capabilities::without_streams(client, revision) };
        Self {
            revision,
            client,
            progress,
            level: None,
            session: Some(session),
            stream,
            accepts_streams,
            cancelled,
        }
    }

    pub(super) fn is_stateless(&self) -> bool {
        self.revision == ProtocolRevision::Stateless
    }

    /// Whether input can be requested from the client during its request.
    pub(super) fn can_request_input(&self) -> bool {
        self.accepts_streams && self.session.is_some()
    }

    /// Whether log messages of this level are sent to the client.
    pub(super) fn wants_log(&self, level: LoggingLevel) -> bool {
        let minimum = self.session.as_ref().map(|session| session.level()).or(self.level);
        self.accepts_streams && minimum.is_some_and(|minimum| level as u8 >= minimum as u8)
    }

    /// The token for progress notifications, if the client requested them.
    pub(super) fn progress_token(&self) -> Option<&ProgressToken> {
        self.progress.as_ref().filter(|_| self.accepts_streams)
    }

    /// Sends a notification before the response.
    pub(super) async fn notify(&self, method: &str, params: &impl Serialize) {
        self.stream.push(wire::notification(method, Some(params))).await;
    }

    /// Sends a request to the client, on the stream of the request that waits for it.
    pub(super) async fn request(
        &self,
        authorization: Reauthorizer,
        method: &str,
        params: Option<&Value>,
        within: Duration,
    ) -> Result<Value, ClientRequestError> {
        let session = self.session.as_ref().ok_or(ClientRequestError::Timeout)?;
        let span = tracing::info_span!(
            "question",
            otel.name = method,
            otel.kind = "client",
            mcp.method.name = method,
            error.type = Empty,
        );
        let request = session.begin_client_request(authorization, trace::context_of(&span));
        self.stream.push(wire::request(request.id, method, params)).await;
        let response = request.response(within).instrument(span.clone()).await;
        match &response {
            Some(Ok(_)) => {}
            Some(Err(_)) => _ = span.record("error.type", "rejected"),
            None => _ = span.record("error.type", "timeout"),
        }
        match response {
            Some(Ok(result)) => Ok(result),
            Some(Err(error)) => Err(ClientRequestError::Rejected(error)),
            None => Err(ClientRequestError::Timeout),
        }
    }
}
