//! The paths to the tool, and what calls each.

use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use drawbridge_cli::mesh::Hosted;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, exchange_response,
    operation::Kind,
};
use drawbridge_sdk::{CallContext, RequestId};
use drawbridge_tests::{Edge, TestIssuer, TestMesh, connect, sign_in};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::{
    bare::{ASKED_FOR, Bare, Known, RPC, TOOL},
    client::{Connection, Message, STATELESS, WITH_SESSIONS},
    load,
    tools::Wanted,
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
    rpc: String,
}

impl Tokens {
    /// Alice's tokens, one of them for an RPC.
    pub(crate) async fn of(mesh: &TestMesh, rpc: String) -> Self {
        let access = mesh.client("alice").await.token().to_owned();
        let inside = sign_in(&mesh.mesh.state.issuer, "drawbridge-auth", "alice", "alice").await;
        let tokens = Self { access, inside, transaction: Arc::new(RwLock::new("".into())), rpc };
        tokens.renew(mesh).await;
        tokens
    }

    /// Exchanges the inner token for a new transaction token.
    pub(crate) async fn renew(&self, mesh: &TestMesh) {
        let mut auth =
            AuthServiceClient::new(connect(&mesh.mesh.state.auth_url).expect("a channel"));
        let request = pb::ExchangeRequest {
            subject_token: self.inside.clone(),
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
    /// The same call within a session, which each connection opens for itself.
    Session {
        address: SocketAddr,
        message: Message,
        token: String,
    },
    Grpc(Known),
    Authorize {
        channel: Channel,
        request: Box<pb::AuthorizeRequest>,
        tokens: Arc<Fresh>,
    },
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

/// All paths, from the shortest.
pub(crate) async fn all(
    mesh: &TestMesh,
    edge: &Edge,
    tool: &Hosted,
    bare: &Bare,
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
        http("echo", bare.echo, old.clone()),
        http("rmcp", bare.rmcp, old.clone()),
        grpc("grpc", Known::simple_text(bare.grpc, None)),
        grpc(
            "grpc-tool",
            Known::simple_text(tool.running.address.tcp().expect("an address"), Some(tokens)),
        ),
        authorize("verify-cold", connecting(), fresh),
        authorize("verify-warm", connecting(), Arc::clone(&same)),
        authorize("authorize", operation, same),
        http("relay", bare.relay, old.clone()),
        http("relay-tool", bare.relay_to_tool, old.clone()),
        http("edge", at_edge, old),
        Path { name: "edge-session", to: session },
        http("edge-2026", at_edge, new),
        http("edge-asks", at_edge, call(WITH_SESSIONS, ASKED_FOR)),
    ]
}

impl Path {
    /// A path of HTTP that is none of those.
    pub(crate) fn http(name: &'static str, address: SocketAddr, message: Message) -> Self {
        Self { name, to: To::Http { address, message } }
    }

    /// Whether it is HTTP, and so has a server that can have a processor of its own.
    pub(crate) fn is_http(&self) -> bool {
        matches!(self.to, To::Http { .. } | To::Session { .. })
    }

    /// A connection on which the tool has answered.
    pub(crate) async fn ready(&self) -> Caller {
        let mut caller = self.connect().await;
        caller.check(self.name).await;
        caller
    }

    /// A connection of its own; gRPC calls share one, as the edge's do.
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

/// Calls the tool by one of the paths.
pub(crate) enum Caller {
    Http {
        connection: Connection,
        message: Message,
    },
    Grpc(Known),
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
    /// Calls, and takes whatever comes back.
    async fn answer(&mut self) -> Bytes {
        match self {
            Self::Http { connection, message } => connection.post(message).await,
            Self::Grpc(known) => {
                let answer = known.call(Wanted { bytes: 0 }).await;
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

    /// Calls, and checks that the tool has answered.
    async fn check(&mut self, path: &str) {
        let answer = self.answer().await;
        if matches!(self, Self::Http { .. }) && path != "echo" {
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            assert!(answer["result"]["content"][0]["text"].is_string(), "{path}: {answer}");
        }
    }
}
