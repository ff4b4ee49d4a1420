//! rmcp's Streamable HTTP, once with sessions for clients of the older revisions that open one, and once
//! without for everybody else.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService,
    session::{
        local::{LocalSessionManager, SessionConfig},
        never::NeverSessionManager,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{mcp::Handler, sessions::Sessions};

/// The longest wait for `initialize` in a session that was begun.
const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the stream of an answered request can be taken up again. Some clients come back every three seconds,
/// for as long as they are answered, to a call that they cancelled.
const ANSWERED_KEPT: Duration = Duration::from_secs(10);

/// Marks a request that belongs to a session, or opens one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InSession;

#[derive(Clone)]
pub(crate) struct Transport {
    stateless: StreamableHttpService<Handler, NeverSessionManager>,
    sessions: StreamableHttpService<Handler, LocalSessionManager>,
}

impl Transport {
    pub(crate) fn new(
        handler: Handler,
        sessions: &Sessions,
        body_bytes_max: usize,
        stopping: CancellationToken,
    ) -> Self {
        // Host, Origin and size are checked before anybody is asked who is calling.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_max_request_body_bytes(body_bytes_max)
            .with_cancellation_token(stopping);
        let stateless_config = config.clone().with_legacy_session_mode(false).with_json_response(true);
        let mut session_config = config.with_legacy_session_mode(true);
        session_config.session_store = sessions.store();

        let for_requests = handler.clone();
        Self {
            stateless: StreamableHttpService::new(
                move || Ok(for_requests.clone()),
                Arc::new(NeverSessionManager::default()),
                stateless_config,
            ),
            sessions: StreamableHttpService::new(
                move || Ok(handler.for_session()),
                sessions.manager(),
                session_config,
            ),
        }
    }

    /// Answers a request that has passed the gate.
    pub(crate) async fn answer(self, request: Request) -> Response {
        let response = if request.extensions().get::<InSession>().is_some() {
            self.sessions.handle(request).await
        } else {
            self.stateless.handle(request).await
        };
        response.map(Body::new)
    }
}

/// Sessions in this process, closed when nothing has happened in them for `idle`.
pub(crate) fn session_manager(idle: Duration) -> Arc<LocalSessionManager> {
    let mut config = SessionConfig::default();
    config.keep_alive = Some(idle);
    config.init_timeout = Some(INITIALIZE_TIMEOUT);
    config.completed_cache_ttl = ANSWERED_KEPT;
    let mut manager = LocalSessionManager::default();
    manager.session_config = config;
    Arc::new(manager)
}
