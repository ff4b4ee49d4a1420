//! MCP over a client's own HTTP connection.

use std::net::{Ipv4Addr, SocketAddr};

use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

pub(crate) const SESSION_ID: &str = "mcp-session-id";
/// The measured revisions: the last one with sessions, and the stateless one.
pub(crate) const WITH_SESSIONS: &str = "2025-11-25";
pub(crate) const STATELESS: &str = "2026-07-28";

/// A message with its headers, as a client sends it.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Message {
    /// A request in the format of a revision.
    pub(crate) fn new(
        revision: &'static str,
        token: &str,
        method: &str,
        mut params: Value,
    ) -> Self {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
        };
        set("content-type", "application/json");
        set("accept", "application/json, text/event-stream");
        set("authorization", &format!("Bearer {token}"));
        set("mcp-protocol-version", revision);
        if revision == STATELESS {
            set("mcp-method", method);
            if let Some(name) = params["name"].as_str() {
                set("mcp-name", name);
            }
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": revision,
                "io.modelcontextprotocol/clientInfo": { "name": "bench", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        Self { headers, body: body.to_string().into() }
    }

    /// A call of a tool.
    pub(crate) fn call(revision: &'static str, token: &str, tool: &str, arguments: &Value) -> Self {
        Self::new(revision, token, "tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// The request that opens a session.
    pub(crate) fn initialize(token: &str) -> Self {
        let params = json!({
            "protocolVersion": WITH_SESSIONS,
            "capabilities": {},
            "clientInfo": { "name": "bench", "version": "1" },
        });
        Self::new(WITH_SESSIONS, token, "initialize", params)
    }

    /// The same message in a session.
    pub(crate) fn within(mut self, session: &HeaderValue) -> Self {
        self.headers.insert(SESSION_ID, session.clone());
        self
    }
}

/// One connection to one server.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        Self::open_from(Ipv4Addr::LOCALHOST, to).await
    }

    /// A connection from this address, which has its own range of ports.
    pub(crate) async fn open_from(from: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((from, 0))).expect("a port");
        let stream = socket.connect(to).await.expect("a server");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        let host = HeaderValue::from_str(&to.to_string()).expect("a header value");
        Self { sender, host }
    }

    /// Sends a request and returns the response once its headers have arrived.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        message: &Message,
    ) -> http::Response<Incoming> {
        let body = Full::new(message.body.clone());
        let mut request =
            Request::builder().method(method).uri("/mcp").body(body).expect("a request");
        request.headers_mut().clone_from(&message.headers);
        request.headers_mut().insert(header::HOST, self.host.clone());
        self.sender.ready().await.expect("a connection");
        let response = self.sender.send_request(request).await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK, "{:?}", message.body);
        response
    }

    /// Posts a message and returns the complete response body.
    pub(crate) async fn post(&mut self, message: &Message) -> Bytes {
        let response = self.send(Method::POST, message).await;
        Body::new(response.into_body()).collect().await.expect("a body").to_bytes()
    }

    /// Opens a session and returns its id.
    pub(crate) async fn initialize(&mut self, token: &str) -> HeaderValue {
        let response = self.send(Method::POST, &Message::initialize(token)).await;
        let id = response.headers()[SESSION_ID].clone();
        Body::new(response.into_body()).collect().await.expect("a body");
        id
    }
}
