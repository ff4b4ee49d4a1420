//! The ways to the tool, and what calls each.

use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use drawbridge_cli::mesh::Hosted;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, exchange_response,
    operation::Kind,
};
use drawbridge_sdk::{CallContext, RequestId};
use drawbridge_tests::{Edge, TestIssuer, TestMesh, connect, sign_in};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tonic::{client::Grpc, transport::Channel};
use url::Url;

use crate::{
    bare::{self, ASKED_FOR, Bare, RPC, TEXT, TOOL},
    load,
};

/// Alice's tokens.
#[derive(Clone)]
pub(crate) struct Tokens {
    /// The one for the edge.
    pub(crate) access: String,
    /// The one for auth, to be exchanged.
    inside: String,
    /// The one for the tool's RPC, which lives for half a minute.
    transaction: Arc<RwLock<Arc<str>>>,
}

impl Tokens {
    pub(crate) async fn of(mesh: &TestMesh) -> Self {
        let access = mesh.client("alice").await.token().to_owned();
        let inside = sign_in(&mesh.mesh.state.issuer, "drawbridge-auth", "alice", "alice").await;
        let tokens = Self { access, inside, transaction: Arc::new(RwLock::new("".into())) };
        tokens.renew(mesh).await;
        tokens
    }

    /// Exchanges the inner token for a new transaction token.
    pub(crate) async fn renew(&self, mesh: &TestMesh) {
        let mut auth = AuthServiceClient::new(connect(&mesh.mesh.state.auth_url).expect("a channel"));
        let request = pb::ExchangeRequest {
            subject_token: self.inside.clone(),
            rpc: RPC.to_owned(),
            ..Default::default()
        };
        let answer = auth.exchange(context().outgoing(request)).await.expect("an answer").into_inner();
        let Some(exchange_response::Outcome::Allowed(allowed)) = answer.outcome else {
            panic!("no transaction token: {answer:?}");
        };
        let token = allowed.transaction_token.expect("a token").token;
        *self.transaction.write().unwrap_or_else(PoisonError::into_inner) = token.into();
    }

    pub(crate) fn transaction(&self) -> Arc<str> {
        Arc::clone(&self.transaction.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn context() -> CallContext {
    CallContext::new(RequestId::generate(), Duration::from_secs(10))
}

/// A way to the tool.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    to: To,
}

enum To {
    Http { address: SocketAddr, headers: HeaderMap, body: Bytes },
    Grpc { channel: Channel, tokens: Option<Tokens> },
    Authorize { channel: Channel, request: Box<pb::AuthorizeRequest>, tokens: Arc<Fresh> },
}

/// Tokens that auth has not seen: each call shows another, until there are none left and they begin again.
pub(crate) struct Fresh {
    tokens: Vec<String>,
    next: AtomicUsize,
}

impl Fresh {
    /// So many tokens of this issuer.
    pub(crate) fn of(issuer: &TestIssuer, audience: &str, count: usize) -> Arc<Self> {
        let (header, mut claims) = (issuer.header(), issuer.claims(audience));
        claims["exp"] = json!(claims["iat"].as_u64().expect("a time") + 3600);
        let token = |number| {
            claims["jti"] = json!(format!("bench-{number}"));
            issuer.sign(&header, &claims)
        };
        Arc::new(Self { tokens: (0..count).map(token).collect(), next: AtomicUsize::new(0) })
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.tokens[number % self.tokens.len()].clone()
    }
}

/// All ways, from the shortest.
pub(crate) async fn all(
    mesh: &TestMesh,
    edge: &Edge,
    tool: &Hosted,
    bare: &Bare,
    tokens: &Tokens,
    fresh: Arc<Fresh>,
) -> Vec<Path> {
    let http = |name, address, (headers, body)| Path { name, to: To::Http { address, headers, body } };
    let channel = |address: SocketAddr| {
        connect(&format!("http://{address}").parse::<Url>().expect("a URL")).expect("a channel")
    };
    let grpc = |name, address, tokens| Path { name, to: To::Grpc { channel: channel(address), tokens } };
    let item = pb::CatalogItem {
        name: TOOL.to_owned(),
        service: "test".to_owned(),
        rpc: RPC.to_owned(),
        scopes: Vec::new(),
    };
    let operation = pb::Operation {
        kind: Kind::CallTool.into(),
        item: Some(item),
        arguments_json: Some(b"{}".to_vec().into()),
        ..Default::default()
    };
    let authorize = |name, operation, tokens| {
        let request = pb::AuthorizeRequest {
            access_token: String::new(),
            operation: Some(operation),
            resource: mesh.mesh.mcp_url.to_string(),
            ..Default::default()
        };
        let channel = connect(&mesh.mesh.state.auth_url).expect("a channel");
        Path { name, to: To::Authorize { channel, request: Box::new(request), tokens } }
    };
    let same = Arc::new(Fresh { tokens: vec![tokens.access.clone()], next: AtomicUsize::new(0) });
    let connecting = || pb::Operation { kind: Kind::Connect.into(), ..Default::default() };
    let (old, new) = (message("2025-11-25", TOOL, tokens), message("2026-07-28", TOOL, tokens));
    let asked_for = message("2025-11-25", ASKED_FOR, tokens);
    vec![
        http("echo", bare.echo, old.clone()),
        http("rmcp", bare.rmcp, old.clone()),
        grpc("grpc", bare.grpc, None),
        grpc("grpc-tool", tool.running.address.tcp().expect("an address"), Some(tokens.clone())),
        authorize("verify-cold", connecting(), fresh),
        authorize("verify-warm", connecting(), Arc::clone(&same)),
        authorize("authorize", operation, same),
        http("relay", bare.relay, old.clone()),
        http("relay-tool", bare.relay_to_tool, old.clone()),
        http("edge", edge.hosted.running.address.tcp().expect("an address"), old),
        http("edge-2026", edge.hosted.running.address.tcp().expect("an address"), new),
        http("edge-asks", edge.hosted.running.address.tcp().expect("an address"), asked_for),
    ]
}

/// The call in the words of a revision.
fn message(revision: &'static str, tool: &str, tokens: &Tokens) -> (HeaderMap, Bytes) {
    let mut params = json!({ "name": tool, "arguments": {} });
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
    };
    set("content-type", "application/json");
    set("accept", "application/json, text/event-stream");
    set("authorization", &format!("Bearer {}", tokens.access));
    set("mcp-protocol-version", revision);
    if revision == "2026-07-28" {
        set("mcp-method", "tools/call");
        set("mcp-name", tool);
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": revision,
            "io.modelcontextprotocol/clientInfo": { "name": "bench", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
    }
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    (headers, body.to_string().into())
}

impl Path {
    /// A connection on which the tool has answered.
    pub(crate) async fn ready(&self) -> Caller {
        let mut caller = self.connect().await;
        caller.check().await;
        caller
    }

    /// A connection of its own; gRPC calls share one, as the edge's do.
    async fn connect(&self) -> Caller {
        match &self.to {
            To::Grpc { channel, tokens } => Caller::Grpc { channel: channel.clone(), tokens: tokens.clone() },
            To::Authorize { channel, request, tokens } => Caller::Authorize {
                client: AuthServiceClient::new(channel.clone()),
                request: request.clone(),
                tokens: Arc::clone(tokens),
            },
            To::Http { address, headers, body } => {
                let stream = TcpStream::connect(address).await.expect("a server");
                stream.set_nodelay(true).expect("a socket");
                let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
                tokio::spawn(connection);
                let mut headers = headers.clone();
                let host = HeaderValue::from_str(&address.to_string()).expect("a header value");
                headers.insert(header::HOST, host);
                Caller::Http {
                    sender,
                    headers,
                    body: body.clone(),
                    says_text: !matches!(self.name, "echo" | "edge-asks"),
                }
            }
        }
    }
}

/// Calls the tool by one of the ways.
pub(crate) enum Caller {
    Http { sender: SendRequest<Full<Bytes>>, headers: HeaderMap, body: Bytes, says_text: bool },
    Grpc { channel: Channel, tokens: Option<Tokens> },
    Authorize { client: AuthServiceClient<Channel>, request: Box<pb::AuthorizeRequest>, tokens: Arc<Fresh> },
}

impl load::Caller for Caller {
    async fn call(&mut self) {
        self.answer().await;
    }
}

impl Caller {
    /// Calls, and takes whatever comes back.
    async fn answer(&mut self) -> Bytes {
        match self {
            Self::Http { sender, headers, body, .. } => {
                let mut request = Request::post("/mcp").body(Full::new(body.clone())).expect("a request");
                *request.headers_mut() = headers.clone();
                sender.ready().await.expect("a connection");
                let response = sender.send_request(request).await.expect("an answer");
                assert_eq!(response.status(), StatusCode::OK);
                Body::new(response.into_body()).collect().await.expect("a body").to_bytes()
            }
            Self::Grpc { channel, tokens } => {
                let answer = bare::call(Grpc::new(channel.clone()), tokens.as_ref()).await;
                assert!(answer.expect("an answer").result.is_some());
                Bytes::new()
            }
            Self::Authorize { client, request, tokens } => {
                let request =
                    pb::AuthorizeRequest { access_token: tokens.next(), ..request.as_ref().clone() };
                let answer =
                    client.authorize(context().outgoing(request)).await.expect("an answer").into_inner();
                assert!(
                    matches!(answer.outcome, Some(authorize_response::Outcome::Allowed(_))),
                    "{answer:?}"
                );
                Bytes::new()
            }
        }
    }

    /// Calls, and checks that the tool has answered.
    async fn check(&mut self) {
        let answer = self.answer().await;
        if let Self::Http { says_text: true, .. } = self {
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            assert_eq!(answer["result"]["content"][0]["text"], TEXT, "{answer}");
        }
    }
}
