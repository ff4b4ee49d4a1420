//! Several replicas of auth: each signs with its own keys, and all publish the keys of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{Json, Router, extract::Query, routing::get};
use drawbridge_auth::KeyTiming;
use drawbridge_mesh::HostedService;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, introspect_response::Status as TokenStatus,
    token_set::Which,
};
use drawbridge_tests::{Auth, Client, TestMesh, connect, serve_conformance, sign_in};
use http::StatusCode;
use jsonwebtoken::decode_header;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{Code, Request};
use url::Url;

use super::revocation::revoke_at;
use crate::{gateway::limits::until, identity::exchange_at};

/// A public key that no replica has.
const FORGED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const RPC: &str = "drawbridge.code.v1.CodeService/ListFiles";
/// Short enough for a test that watches the published keys rather than verifiers.
pub(crate) const FAST: KeyTiming = KeyTiming {
    lead: Duration::from_millis(600),
    lead_at_start: Duration::from_millis(300),
    grace: Duration::from_secs(3),
    poll_interval: Duration::from_millis(200),
    confirm_interval: Duration::from_millis(50),
    confirm_timeout: Duration::from_secs(2),
    stall_max: Duration::from_secs(20),
};

fn with_peers(config: &mut drawbridge_auth::Config, peers: &[&Url], timing: KeyTiming) {
    config.peers = peers.iter().map(|url| (*url).clone()).collect();
    config.key_timing = timing;
    config.transaction_ttl_seconds = 1;
}

/// Replicas that know one another, not yet started.
pub(crate) fn replicas<const N: usize>(mesh: &TestMesh, timing: KeyTiming) -> [Auth; N] {
    let ports = [(); N].map(|()| mesh.auth(|_| {}));
    let urls = ports.each_ref().map(|auth| auth.url.clone());
    ports.map(|auth| auth.with(|config| with_peers(config, &urls.each_ref(), timing)))
}

pub(crate) async fn ready(auth: &Auth) -> HostedService {
    let running = auth.start().await;
    running.running.readiness().wait_ready().await;
    running
}

/// An internal caller's own token.
pub(crate) async fn own(mesh: &TestMesh, user: &str) -> String {
    sign_in(&mesh.mesh.state.issuer, &mesh.mesh.state.internal_audience, user, user).await
}

pub(crate) async fn mint(auth: &Auth, own: &str) -> String {
    let request = pb::ExchangeRequest {
        subject_token: own.to_owned(),
        rpc: RPC.to_owned(),
        ..Default::default()
    };
    exchange_at(&auth.url, request).await.expect("a transaction token")
}

fn kid(token: &str) -> String {
    decode_header(token).expect("a token").kid.expect("a key id")
}

async fn keys(auth: &Auth) -> Vec<Value> {
    let response = reqwest::get(auth.keys.clone()).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let mut set: Value = response.json().await.expect("keys");
    set["keys"].as_array_mut().map(std::mem::take).expect("keys")
}

async fn kids(auth: &Auth) -> BTreeSet<String> {
    let id = |key: &Value| key["kid"].as_str().expect("an id").to_owned();
    keys(auth).await.iter().map(id).collect()
}

async fn metric(running: &HostedService, name: &str) -> f64 {
    let metrics = reqwest::get(format!("http://{}/metrics", running.running.admin)).await;
    let metrics = metrics.expect("metrics").text().await.expect("metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_default()
}

pub(super) async fn introspect(auth: &Auth, tokens: &[&str]) -> (Vec<bool>, Vec<TokenStatus>) {
    let mut client = AuthServiceClient::new(connect(&auth.url).expect("a channel"));
    let transaction_tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
    let request = Request::new(pb::IntrospectRequest { transaction_tokens });
    let response = client.introspect(request).await.expect("an answer").into_inner();
    (response.active.clone(), response.statuses().collect())
}

pub(super) async fn watch(auth: &Auth) -> Result<pb::WatchResponse, tonic::Status> {
    let mut client = AuthServiceClient::new(connect(&auth.url).expect("a channel"));
    let mut epochs = client.watch(pb::WatchRequest {}).await?.into_inner();
    Ok(epochs.message().await?.expect("an epoch"))
}

#[tokio::test]
async fn tool_services_accept_the_calls_of_edges_at_different_replicas() {
    let mesh = TestMesh::with(serve_conformance).await;
    let timing = KeyTiming { lead_at_start: KeyTiming::default().lead_at_start, ..FAST };
    let [one, two] =
        replicas(&mesh, timing).map(|auth| auth.with(|config| config.transaction_ttl_seconds = 30));
    let first = ready(&one).await;
    let at = |auth: &Auth| {
        let url = auth.url.clone();
        move |config: &mut drawbridge_edge::Config| config.auth_urls = vec![url.into()]
    };
    let (_service, hosted, edge) = mesh.conformance_of(one.keys.clone(), at(&one)).await;
    let client = edge.client(&mesh.client("erin").await);
    let call = async |client: &Client| {
        let arguments = json!({ "name": "test_simple_text", "arguments": {} });
        client.call("tools/call", arguments).await
    };
    let lists_it = async |client: &Client| {
        let list = client.call("tools/list", json!({})).await;
        list.status == StatusCode::OK && list.text.contains("test_simple_text")
    };
    until("the first edge lists the tool", async || lists_it(&client).await).await;
    assert!(call(&client).await.message().contains("simple text"));
    // The tool service has the keys of the first replica in its cache when the second one starts.
    let second = ready(&two).await;
    let service = mesh.grpc_url(hosted.running.address.tcp().expect("an address"));
    let other_edge = mesh.edge(&[("test", &service)], at(&two)).await;
    let other = other_edge.client(&client);
    until("the second edge lists the tool", async || lists_it(&other).await).await;
    for client in [&other, &client, &other] {
        let reply = call(client).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        assert!(reply.message().contains("simple text"), "{reply:?}");
    }
    first.stop().await;
    let reply = call(&other).await;
    assert!(reply.message().contains("simple text"), "{reply:?}");
    second.stop().await;
}

#[tokio::test]
async fn every_replica_publishes_a_key_before_it_signs_while_keys_rotate_and_replicas_come_and_go()
{
    let mesh = TestMesh::start().await;
    let auths: [Auth; 3] = replicas(&mesh, FAST);
    let auths = auths.map(|auth| auth.with(|config| config.transaction_key_seconds = 2));
    let own = own(&mesh, "alice").await;
    let (one, two) = tokio::join!(ready(&auths[0]), ready(&auths[1]));
    let mut running = BTreeMap::from([(0, one), (1, two)]);
    let mut signed: [BTreeSet<String>; 3] = Default::default();
    // A minute is far more than it takes.
    let rotating = async {
        while signed.iter().any(|kids| kids.len() < 3) {
            if signed[0].len() == 2 && !running.contains_key(&2) {
                running.insert(2, ready(&auths[2]).await);
            }
            let mut published = Vec::new();
            for replica in running.keys() {
                published.push(kids(&auths[*replica]).await);
            }
            for replica in running.keys() {
                let kid = kid(&mint(&auths[*replica], &own).await);
                for published in &published {
                    assert!(published.contains(&kid), "{kid} of {replica}: {published:?}");
                }
                signed[*replica].insert(kid);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), rotating).await.expect("rotations");

    let left = running.remove(&2).expect("the third replica");
    let token = mint(&auths[2], &own).await;
    let before = kids(&auths[2]).await;
    left.stop().await;
    assert!(kids(&auths[0]).await.contains(&kid(&token)), "its tokens have not expired");
    until("the keys of a replica that left are withdrawn", async || {
        let kids = kids(&auths[0]).await;
        !kids.contains(&kid(&token)) && kids.len() < before.len()
    })
    .await;
    for running in running.into_values() {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_replica_decides_nothing_until_its_peers_answer_or_have_been_silent_for_long() {
    let mesh = TestMesh::start().await;
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent: Url =
        format!("http://{}", hanging.local_addr().expect("an address")).parse().expect("a URL");
    // Longer than one poll of such a peer.
    let timing = KeyTiming { confirm_timeout: Duration::from_secs(5), ..FAST };
    let auth = mesh.auth(|config| with_peers(config, &[&silent], timing));
    let own = own(&mesh, "alice").await;
    let running = auth.start().await;
    let admin = running.running.admin;
    let get = async |path: &str| {
        reqwest::get(format!("http://{admin}{path}")).await.expect("an answer").status()
    };
    assert_eq!(get("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get("/.well-known/jwks.json").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get("/.well-known/jwks.json?own").await, StatusCode::OK, "for the peers");
    assert_eq!(watch(&auth).await.expect_err("no epoch").code(), Code::Unavailable);
    let mut client = AuthServiceClient::new(connect(&auth.url).expect("a channel"));
    for code in [
        client.authorize(pb::AuthorizeRequest::default()).await.expect_err("no decision").code(),
        client.filter_catalog(pb::FilterCatalogRequest::default()).await.expect_err("none").code(),
        client.exchange(pb::ExchangeRequest::default()).await.expect_err("no token").code(),
    ] {
        assert_eq!(code, Code::Unavailable);
    }
    running.running.readiness().wait_ready().await;
    assert!(watch(&auth).await.is_ok());
    assert!(kids(&auth).await.contains(&kid(&mint(&auth, &own).await)));
    assert!(metric(&running, "auth_keys_unconfirmed_total").await >= 1.0);
    until("the silent peer is counted", async || {
        metric(&running, "auth_peers_silent").await >= 1.0
    })
    .await;
    assert!(mesh.log().contains("not every replica of auth publishes this key"));
    running.stop().await;
}

#[tokio::test]
async fn no_key_waits_for_a_peer_that_does_not_run() {
    let mesh = TestMesh::start().await;
    // Longer than the test may take.
    let timing = KeyTiming { confirm_timeout: Duration::from_secs(600), ..FAST };
    let [one, _absent, _absent_too] = replicas(&mesh, timing);
    let running = ready(&one).await;
    assert!(kids(&one).await.contains(&kid(&mint(&one, &own(&mesh, "alice").await).await)));
    for metric_at_rest in ["auth_keys_unconfirmed_total", "auth_peers_silent"] {
        assert!(metric(&running, metric_at_rest).await == 0.0, "{metric_at_rest}");
    }
    running.stop().await;
}

/// Serves another key under the id that the replica asks for.
async fn forger() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let serve = async |Query(query): Query<BTreeMap<String, String>>| {
        let forged = json!({ "kty": "OKP", "crv": "Ed25519", "x": FORGED, "kid": query["want"] });
        Json(json!({ "keys": [forged], "held": [query["want"]] }))
    };
    let routes = Router::new().route("/.well-known/jwks.json", get(serve));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url.parse().expect("a URL")
}

#[tokio::test]
async fn a_key_under_the_id_of_another_is_refused_and_counted() {
    let mesh = TestMesh::start().await;
    let forger = forger().await;
    let auth = mesh.auth(|config| with_peers(config, &[&forger], FAST));
    let running = ready(&auth).await;
    let token = mint(&auth, &own(&mesh, "alice").await).await;
    let published = keys(&auth).await;
    assert_eq!(published.len(), 1, "{published:?}");
    assert_eq!(published[0]["kid"], kid(&token));
    assert_ne!(published[0]["x"], FORGED);
    let refused = "auth_peer_keys_refused_total{reason=\"thumbprint\"}";
    assert!(metric(&running, refused).await >= 1.0);
    running.stop().await;
}

#[tokio::test]
async fn only_replicas_with_the_identity_of_auth_add_keys() {
    let mesh = TestMesh::start().await;
    let as_service = |service: &str| {
        let mtls = mesh.mtls_server(service);
        mesh.auth(|config| config.mtls = mtls)
    };
    let auths = [as_service("auth"), as_service("auth"), as_service("code")];
    let urls = auths.each_ref().map(|auth| {
        let mut url = auth.url.clone();
        url.set_scheme("https").expect("a scheme");
        url
    });
    let [one, two, other] =
        auths.map(|auth| auth.with(|config| with_peers(config, &urls.each_ref(), FAST)));
    let (one_runs, two_runs, other_runs) = tokio::join!(ready(&one), ready(&two), ready(&other));
    until("the replicas of auth publish two keys", async || kids(&one).await.len() == 2).await;
    assert_eq!(kids(&one).await, kids(&two).await);
    assert_eq!(kids(&other).await.len(), 1, "auth answers no other service that asks for keys");
    assert_eq!(kids(&one).await.intersection(&kids(&other).await).count(), 0);
    for running in [one_runs, two_runs, other_runs] {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_token_is_active_at_every_replica_unknown_after_a_restart_and_revoked_by_what_it_names() {
    let mesh = TestMesh::with(|config| {
        std::fs::remove_file(config.policies.join("tenants.cedar")).expect("a removable file");
        let policy =
            "@id(\"all-code\")\npermit (principal, action, resource in Service::\"code\");\n";
        std::fs::write(config.policies.join("all-code.cedar"), policy).expect("a file");
    })
    .await;
    let [one, two] = replicas(&mesh, FAST);
    let (first, second) = tokio::join!(ready(&one), ready(&two));
    let (alice, bob) = (own(&mesh, "alice").await, own(&mesh, "bob").await);
    let tokens = [mint(&one, &alice).await, mint(&two, &bob).await];
    let tokens = tokens.each_ref().map(String::as_str);
    for auth in [&one, &two] {
        let active = (vec![true, true], vec![TokenStatus::Active; 2]);
        assert_eq!(introspect(auth, &tokens).await, active);
    }
    first.stop().await;
    second.stop().await;
    // A replica without peers.
    let alone = mesh.auth(|_| {});
    let running = ready(&alone).await;
    let unknown = TokenStatus::Unknown;
    let (active, statuses) = introspect(&alone, &[tokens[0], tokens[1], "nonsense"]).await;
    assert_eq!((active, statuses), (vec![false; 3], vec![unknown; 3]));
    revoke_at(&alone.url, &mesh, Which::Subject("alice".to_owned())).await;
    let (active, statuses) = introspect(&alone, &tokens).await;
    assert_eq!((active, statuses), (vec![false; 2], vec![TokenStatus::Revoked, unknown]));
    running.stop().await;
}
