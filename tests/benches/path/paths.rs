//! The paths to the tool and their callers.

use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use drawbridge_mesh::HostedService;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, exchange_response,
    operation::Kind,
};
use drawbridge_runtime::RequestId;
use drawbridge_tests::{Edge, TestIssuer, TestMesh, connect, sign_in};
use drawbridge_transport::CallContext;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::{
    baselines::{Baselines, RPC, RelayTool, TOOL, UNCACHED_TOOL},
    client::{Connection, Message, STATELESS, WITH_SESSIONS},
    load,
    tools::ReadRequest,
};

/// Alice's tokens.
#[derive(Clone)]
pub(crate) struct Tokens {
    /// The access token for the edge.
    pub(crate) access: String,
    /// The token for auth, to be exchanged.
    internal: String,
    /// The transaction token for the tool's RPC, valid for half a minute.
    transaction: Arc<RwLock<Arc<str>>>,
    rpc: String,
}

impl Tokens {
    /// Alice's tokens, with a transaction token for this RPC.
    pub(crate) async fn of(mesh: &TestMesh, rpc: String) -> Self {
        let access = mesh.client("alice").await.token().to_owned();
        let internal = sign_in(&mesh.mesh.state.issuer, "drawbridge-auth", "alice", "alice").await;
        let tokens = Self { access, internal, transaction: Arc::new(RwLock::new("".into())), rpc };
        tokens.renew(mesh).await;
        tokens
    }

    /// Exchanges the internal token for a new transaction token.
    pub(crate) async fn renew(&self, mesh: &TestMesh) {
        let mut auth =
            AuthServiceClient::new(connect(&mesh.mesh.state.auth_url).expect("a channel"));
        let request = pb::ExchangeRequest {
            subject_token: self.internal.clone(),
            rpc: self.rpc.clone(),
            ..Default::default()
        };
        let answer =
            auth.exchange(context().outgoing(request)).await.expect("an answer").into_inner();
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

/// A path to the tool.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    to: To,
}

enum To {
    Http {
        address: SocketAddr,
        message: Message,
    },
    /// The same call in a session; each connection opens its own.
    Session {
        address: SocketAddr,
        message: Message,
        token: String,
    },
    Grpc(RelayTool),
    Authorize {
        channel: Channel,
        request: Box<pb::AuthorizeRequest>,
        tokens: Arc<Fresh>,
    },
}

/// Tokens unknown to auth: each call presents another one, until they are used up and start over.
pub(crate) struct Fresh {
    tokens: Vec<String>,
    next: AtomicUsize,
}

impl Fresh {
    /// Signs `count` tokens of this issuer.
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

/// All paths, the shortest first.
pub(crate) async fn all(
    mesh: &TestMesh,
    edge: &Edge,
    tool: &HostedService,
    baselines: &Baselines,
    tokens: &Tokens,
    fresh: Arc<Fresh>,
) -> Vec<Path> {
    let http = |name, address, message| Path { name, to: To::Http { address, message } };
    let grpc = |name, known| Path { name, to: To::Grpc(known) };
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
    let call = |revision, tool| Message::call(revision, &tokens.access, tool, &json!({}));
    let (old, new) = (call(WITH_SESSIONS, TOOL), call(STATELESS, TOOL));
    let at_edge = edge.hosted.running.address.tcp().expect("an address");
    let session =
        To::Session { address: at_edge, message: old.clone(), token: tokens.access.clone() };
    vec![
        http("echo", baselines.echo, old.clone()),
        http("rmcp", baselines.rmcp, old.clone()),
        grpc("grpc", RelayTool::simple_text(baselines.grpc, None)),
        grpc(
            "grpc-tool",
            RelayTool::simple_text(tool.running.address.tcp().expect("an address"), Some(tokens)),
        ),
        authorize("verify-cold", connecting(), fresh),
        authorize("verify-warm", connecting(), Arc::clone(&same)),
        authorize("authorize", operation, same),
        http("relay", baselines.relay, old.clone()),
        http("relay-tool", baselines.relay_to_tool, old.clone()),
        http("edge", at_edge, old),
        Path { name: "edge-session", to: session },
        http("edge-2026", at_edge, new),
        http("edge-asks", at_edge, call(WITH_SESSIONS, UNCACHED_TOOL)),
    ]
}

impl Path {
    /// Another HTTP path.
    pub(crate) fn http(name: &'static str, address: SocketAddr, message: Message) -> Self {
        Self { name, to: To::Http { address, message } }
    }

    /// Whether it is HTTP, so that its server can have its own processor.
    pub(crate) fn is_http(&self) -> bool {
        matches!(self.to, To::Http { .. } | To::Session { .. })
    }

    /// A connection after one successful call.
    pub(crate) async fn ready(&self) -> Caller {
        let mut caller = self.connect().await;
        caller.check(self.name).await;
        caller
    }

    /// Opens a new connection; gRPC calls share one, like the edge's.
    async fn connect(&self) -> Caller {
        match &self.to {
            To::Grpc(known) => Caller::Grpc(known.clone()),
            To::Authorize { channel, request, tokens } => Caller::Authorize {
                client: AuthServiceClient::new(channel.clone()),
                request: request.clone(),
                tokens: Arc::clone(tokens),
            },
            To::Http { address, message } => {
                let (connection, message) = (Connection::open(*address).await, message.clone());
                Caller::Http { connection, message }
            }
            To::Session { address, message, token } => {
                let mut connection = Connection::open(*address).await;
                let session = connection.initialize(token).await;
                Caller::Http { connection, message: message.clone().within(&session) }
            }
        }
    }
}

/// A caller of the tool on one path.
pub(crate) enum Caller {
    Http {
        connection: Connection,
        message: Message,
    },
    Grpc(RelayTool),
    Authorize {
        client: AuthServiceClient<Channel>,
        request: Box<pb::AuthorizeRequest>,
        tokens: Arc<Fresh>,
    },
}

impl load::Caller for Caller {
    async fn call(&mut self) {
        self.answer().await;
    }
}

impl Caller {
    /// Calls and returns the response's body.
    async fn answer(&mut self) -> Bytes {
        match self {
            Self::Http { connection, message } => connection.post(message).await,
            Self::Grpc(known) => {
                let answer = known.call(ReadRequest { bytes: 0 }).await;
                assert!(answer.expect("an answer").result.is_some());
                Bytes::new()
            }
            Self::Authorize { client, request, tokens } => {
                let request = pb::AuthorizeRequest {
                    access_token: tokens.next(),
                    ..request.as_ref().clone()
                };
                let answer = client
                    .authorize(context().outgoing(request))
                    .await
                    .expect("an answer")
                    .into_inner();
                assert!(
                    matches!(answer.outcome, Some(authorize_response::Outcome::Allowed(_))),
                    "{answer:?}"
                );
                Bytes::new()
            }
        }
    }

    /// Calls and checks the tool's result.
    async fn check(&mut self, path: &str) {
        let answer = self.answer().await;
        if matches!(self, Self::Http { .. }) && path != "echo" {
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            assert!(answer["result"]["content"][0]["text"].is_string(), "{path}: {answer}");
        }
    }
}
