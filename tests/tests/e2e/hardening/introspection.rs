//! Floods of unknown opaque tokens.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Form, Json, Router, extract::State, routing::post};
use drawbridge_mesh::HostedService;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response::Outcome,
    operation::Kind, unverified::Reason,
};
use drawbridge_tests::{TestIssuer, TestMesh, connect, now};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};
use tonic::transport::Channel;

use crate::identity::context;

const GOOD: &str = "good-token";
/// The addresses of the forged tokens and of an honest one.
const FLOOD: &str = "198.51.100.7";
const HONEST: &str = "203.0.113.9";
/// The number of forged tokens in the attack.
const FORGED: usize = 300;

/// An issuer of opaque tokens that delays its responses to forged ones until it is released.
#[derive(Clone, Default)]
struct Opaque {
    requests: Arc<Mutex<Vec<String>>>,
    released: Arc<AtomicBool>,
    release: Arc<Notify>,
}

impl Opaque {
    fn requests_for(&self, token: &str) -> usize {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|requested| *requested == token).count()
    }

    fn forged_requests(&self) -> usize {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|requested| *requested != GOOD).count()
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        self.release.notify_waiters();
    }

    async fn respond(&self, token: &str) -> Value {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(token.to_owned());
        if token == GOOD {
            // It expires now: within the leeway it is valid, but its response is not cached.
            return json!({
                "active": true, "sub": "alice", "aud": self.audience(), "client_id": "cli", "exp": now(),
            });
        }
        let released = self.release.notified();
        if !self.released.load(Ordering::SeqCst) {
            released.await;
        }
        json!({ "active": false })
    }

    fn audience(&self) -> &'static str {
        "api://drawbridge"
    }
}

async fn introspect(
    State(opaque): State<Opaque>,
    Form(form): Form<Vec<(String, String)>>,
) -> Json<Value> {
    let token = form.iter().find(|(name, _)| name == "token").map(|(_, token)| token.clone());
    Json(opaque.respond(&token.unwrap_or_default()).await)
}

/// An auth that trusts this issuer within these limits.
struct FloodTest {
    opaque: Opaque,
    auth: Auth,
    _mesh: TestMesh,
    _hosted: HostedService,
}

/// Auth, called like an edge does.
#[derive(Clone)]
struct Auth {
    client: AuthServiceClient<Channel>,
    mcp_url: String,
}

impl FloodTest {
    async fn start(limits: &str) -> Self {
        let opaque = Opaque::default();
        let routes =
            Router::new().route("/introspect", post(introspect)).with_state(opaque.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let mesh = TestMesh::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("issuers.toml");
        fs::write(folder.path().join("secret"), "secret").expect("a file");
        let table = format!(
            "[[issuers]]\nissuer = \"{url}\"\naudiences = [\"{}\"]\nallow_private_addresses = true\n\
             [issuers.introspection]\nurl = \"{url}/introspect\"\nclient_id = \"drawbridge\"\n\
             client_secret_file = \"secret\"\n[issuers.introspection.limits]\n{limits}\n",
            opaque.audience()
        );
        fs::write(&file, table).expect("a file");
        let replica = mesh.auth(|config| config.issuers = Some(file));
        let hosted = replica.start().await;
        let client = AuthServiceClient::new(connect(&replica.url).expect("a channel"));
        let auth = Auth { client, mcp_url: mesh.mesh.mcp_url.to_string() };
        Self { opaque, auth, _mesh: mesh, _hosted: hosted }
    }

    /// Presents all forged tokens concurrently, and counts those rejected as busy.
    fn flood(
        &self,
        address: impl Fn(usize) -> String,
        busy: &Arc<AtomicUsize>,
    ) -> JoinSet<Outcome> {
        let mut flood = JoinSet::new();
        for number in 0..FORGED {
            let (auth, address, busy) = (self.auth.clone(), address(number), Arc::clone(busy));
            flood.spawn(async move {
                let outcome = auth.authorize(&format!("forged-{number}"), "", &address).await;
                busy.fetch_add(usize::from(is_busy(&outcome)), Ordering::SeqCst);
                outcome
            });
        }
        flood
    }
}

impl Auth {
    /// Auth's outcome for a token presented at an endpoint, from an address.
    async fn authorize(&self, token: &str, endpoint: &str, address: &str) -> Outcome {
        let request = pb::AuthorizeRequest {
            access_token: token.to_owned(),
            operation: Some(pb::Operation { kind: Kind::Connect.into(), ..Default::default() }),
            resource: format!("{}{endpoint}", self.mcp_url),
            client_address: address.to_owned(),
        };
        let answer = self.client.clone().authorize(context().outgoing(request)).await;
        answer.expect("a response").into_inner().outcome.expect("an outcome")
    }
}

fn is_busy(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unverified(unverified) if unverified.reason() == Reason::Busy)
}

/// The attack: 300 forged tokens used all permits of a slow issuer, and a valid one got 503 after
/// 5.4 s.
#[tokio::test]
async fn forged_opaque_tokens_do_not_block_a_valid_one() {
    let test = FloodTest::start("unknown_queue_timeout_ms = 60000").await;
    let (opaque, busy) = (test.opaque.clone(), Arc::default());
    let flood = test.flood(|_| FLOOD.to_owned(), &busy);
    // 4 are in flight, and the issuer does not respond. 32 wait; the others are rejected at once.
    until(|| busy.load(Ordering::SeqCst) >= FORGED - 36 && opaque.forged_requests() >= 4).await;
    // An unknown token from another address is introspected at once. Then it is known, and has
    // priority even from the address of the flood.
    for (endpoint, address) in [("", HONEST), ("/code", FLOOD), ("/tickets", FLOOD)] {
        let outcome = test.auth.authorize(GOOD, endpoint, address).await;
        assert!(matches!(outcome, Outcome::Allowed(_)), "{endpoint} {address}: {outcome:?}");
    }
    assert_eq!(opaque.requests_for(GOOD), 3);
    opaque.release();
    let flooded = flood.join_all().await;
    assert!(!flooded.iter().any(|outcome| matches!(outcome, Outcome::Allowed(_))), "{flooded:?}");
    assert!(opaque.forged_requests() <= 36, "{}", opaque.forged_requests());
}

/// The queue is bounded across all addresses.
#[tokio::test]
async fn a_full_queue_of_unknown_tokens_rejects_at_once() {
    let limits =
        "unknown_queue_timeout_ms = 60000\nunknown_in_flight_max = 1\nunknown_queue_max = 3";
    let test = FloodTest::start(limits).await;
    let (opaque, busy) = (test.opaque.clone(), Arc::default());
    let flood = test.flood(|number| format!("198.51.100.{}", number % 250), &busy);
    // The issuer has not responded yet.
    until(|| busy.load(Ordering::SeqCst) == FORGED - 4).await;
    opaque.release();
    flood.join_all().await;
    assert_eq!(opaque.forged_requests(), 4);
}

#[tokio::test]
async fn a_rejected_opaque_token_is_cached_and_not_introspected_again() {
    let test = FloodTest::start("").await;
    test.opaque.release();
    for endpoint in ["", "/code", "", "/tickets"] {
        let outcome = test.auth.authorize("forged", endpoint, FLOOD).await;
        assert!(matches!(&outcome, Outcome::Unauthenticated(_)), "{outcome:?}");
    }
    assert_eq!(test.opaque.requests_for("forged"), 1);
}

/// Auth reports a token as unverified if its issuer's keys are unreachable, and the edge counts its
/// caller as unknown.
#[tokio::test]
async fn a_token_of_an_issuer_without_reachable_keys_is_distinguished_from_an_outage_of_auth() {
    let unreachable = TestIssuer::start().await;
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let mesh = TestMesh::with(|config| {
        let file = config.policies.join("issuers.toml");
        let table =
            format!("[[issuers]]\nissuer = \"http://{closed}\"\nallow_private_addresses = true\n");
        fs::write(&file, table).expect("a file");
        config.issuers = Some(file);
    })
    .await;
    let mut claims = unreachable.claims(mesh.mesh.mcp_url.as_str());
    claims["iss"] = json!(format!("http://{closed}"));
    let token = unreachable.sign(&unreachable.header(), &claims);
    let mut auth = AuthServiceClient::new(connect(&mesh.mesh.state.auth_url).expect("a channel"));
    let request = pb::AuthorizeRequest {
        access_token: token.clone(),
        operation: Some(pb::Operation { kind: Kind::Connect.into(), ..Default::default() }),
        resource: mesh.mesh.mcp_url.to_string(),
        ..Default::default()
    };
    let answer = auth.authorize(context().outgoing(request)).await.expect("an answer").into_inner();
    let Some(Outcome::Unverified(unverified)) = answer.outcome else { panic!("{answer:?}") };
    assert_eq!(unverified.reason(), Reason::Keys);
    let reply = mesh.client_with(&token).call("tools/list", json!({})).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json["error"]["data"]["reason"]),
        (503, &json!("unverified"))
    );
    assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
}

async fn until(is_reached: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_reached() {
        assert!(started.elapsed() < Duration::from_secs(60), "the state is not reached");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
