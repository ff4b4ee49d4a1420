//! Opaque tokens that nobody knows.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Form, Json, Router, extract::State, routing::post};
use drawbridge_cli::mesh::Hosted;
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
/// From here the made-up tokens come, and from there an honest one.
const FLOOD: &str = "198.51.100.7";
const HONEST: &str = "203.0.113.9";
/// So many made-up tokens did it.
const MADE_UP: usize = 300;

/// An issuer of opaque tokens, which thinks about made-up ones until it is told not to.
#[derive(Clone, Default)]
struct Opaque {
    asked: Arc<Mutex<Vec<String>>>,
    released: Arc<AtomicBool>,
    release: Arc<Notify>,
}

impl Opaque {
    fn asked(&self, token: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| *asked == token).count()
    }

    fn asked_of_made_up(&self) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| *asked != GOOD).count()
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        self.release.notify_waiters();
    }

    async fn answer(&self, token: &str) -> Value {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(token.to_owned());
        if token == GOOD {
            // Its end is now: the leeway still lets it in, and no answer is remembered.
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
    Json(opaque.answer(&token.unwrap_or_default()).await)
}

/// An auth that asks this issuer, within these limits.
struct Scene {
    opaque: Opaque,
    auth: Auth,
    _mesh: TestMesh,
    _hosted: Hosted,
}

/// Auth, as an edge asks it.
#[derive(Clone)]
struct Auth {
    client: AuthServiceClient<Channel>,
    mcp_url: String,
}

impl Scene {
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

    /// Shows so many made-up tokens at once, and counts those that are refused because too much is asked.
    fn flood(
        &self,
        address: impl Fn(usize) -> String,
        busy: &Arc<AtomicUsize>,
    ) -> JoinSet<Outcome> {
        let mut flood = JoinSet::new();
        for number in 0..MADE_UP {
            let (auth, address, busy) = (self.auth.clone(), address(number), Arc::clone(busy));
            flood.spawn(async move {
                let outcome = auth.show(&format!("made-up-{number}"), "", &address).await;
                busy.fetch_add(usize::from(is_busy(&outcome)), Ordering::SeqCst);
                outcome
            });
        }
        flood
    }
}

impl Auth {
    /// What auth says of a token that is shown at an endpoint, from an address.
    async fn show(&self, token: &str, endpoint: &str, address: &str) -> Outcome {
        let request = pb::AuthorizeRequest {
            access_token: token.to_owned(),
            operation: Some(pb::Operation { kind: Kind::Connect.into(), ..Default::default() }),
            resource: format!("{}{endpoint}", self.mcp_url),
            client_address: address.to_owned(),
        };
        let answer = self.client.clone().authorize(context().outgoing(request)).await;
        answer.expect("an answer").into_inner().outcome.expect("an outcome")
    }
}

fn is_busy(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unverified(unverified) if unverified.reason() == Reason::Busy)
}

/// The attack: 300 made-up tokens held all the places of an issuer that thinks, and a good one got 503 after 5.4 s.
#[tokio::test]
async fn made_up_opaque_tokens_do_not_shut_out_a_good_one() {
    let scene = Scene::start("unknown_queue_timeout_ms = 60000").await;
    let (opaque, busy) = (scene.opaque.clone(), Arc::default());
    let flood = scene.flood(|_| FLOOD.to_owned(), &busy);
    // 4 are on their way, and the issuer answers none of them. 32 wait; the others are refused without waiting.
    until(|| busy.load(Ordering::SeqCst) >= MADE_UP - 36 && opaque.asked_of_made_up() >= 4).await;
    // An unknown one from elsewhere is asked about at once. Then it is known, and goes first even from the address
    // of the flood.
    for (endpoint, address) in [("", HONEST), ("/code", FLOOD), ("/tickets", FLOOD)] {
        let outcome = scene.auth.show(GOOD, endpoint, address).await;
        assert!(matches!(outcome, Outcome::Allowed(_)), "{endpoint} {address}: {outcome:?}");
    }
    assert_eq!(opaque.asked(GOOD), 3);
    opaque.release();
    let flooded = flood.join_all().await;
    assert!(!flooded.iter().any(|outcome| matches!(outcome, Outcome::Allowed(_))), "{flooded:?}");
    assert!(opaque.asked_of_made_up() <= 36, "{}", opaque.asked_of_made_up());
}

/// From however many addresses they come.
#[tokio::test]
async fn a_full_queue_of_unknown_tokens_refuses_at_once() {
    let limits =
        "unknown_queue_timeout_ms = 60000\nunknown_in_flight_max = 1\nunknown_queue_max = 3";
    let scene = Scene::start(limits).await;
    let (opaque, busy) = (scene.opaque.clone(), Arc::default());
    let flood = scene.flood(|number| format!("198.51.100.{}", number % 250), &busy);
    // The issuer has answered nothing so far.
    until(|| busy.load(Ordering::SeqCst) == MADE_UP - 4).await;
    opaque.release();
    flood.join_all().await;
    assert_eq!(opaque.asked_of_made_up(), 4);
}

#[tokio::test]
async fn a_refused_opaque_token_is_remembered_and_costs_its_issuer_nothing_more() {
    let scene = Scene::start("").await;
    scene.opaque.release();
    for endpoint in ["", "/code", "", "/tickets"] {
        let outcome = scene.auth.show("made-up", endpoint, FLOOD).await;
        assert!(matches!(&outcome, Outcome::Unauthenticated(_)), "{outcome:?}");
    }
    assert_eq!(scene.opaque.asked("made-up"), 1);
}

/// Of a token that names an issuer whose keys are away nobody can say whether it is good, and auth says so: the edge
/// counts whoever shows it as unknown.
#[tokio::test]
async fn a_token_of_an_issuer_whose_keys_are_away_is_told_from_an_outage_of_auth() {
    let gone = TestIssuer::start().await;
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
    let mut claims = gone.claims(mesh.mesh.mcp_url.as_str());
    claims["iss"] = json!(format!("http://{closed}"));
    let token = gone.sign(&gone.header(), &claims);
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

async fn until(reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
