//! Revocation: an unexpired token is rejected on every replica within a second.

use std::time::{Duration, Instant};

use drawbridge_cli::caller;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, revoke_response::Outcome, token_set::Which,
};
use drawbridge_runtime::RequestId;
use drawbridge_tests::{Client, Redis, TestMesh, connect, sign_in};
use drawbridge_transport::CallContext;
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tonic::Code;
use url::Url;

/// The time limit for a revocation to take effect on every replica.
const PROPAGATION_MAX: Duration = Duration::from_secs(1);

async fn revoke(mesh: &TestMesh, own: &str, which: Which) -> Outcome {
    revoke_of(mesh, own, mesh.mesh.state.issuer_name(), which).await
}

pub(crate) async fn revoke_of(mesh: &TestMesh, own: &str, issuer: &str, which: Which) -> Outcome {
    let tokens = pb::TokenSet { issuer: issuer.to_owned(), which: Some(which) };
    revoke_tokens(&mesh.mesh.state.auth_url, own, tokens).await
}

/// Revokes tokens of the mesh's issuer at this auth.
pub(crate) async fn revoke_at(auth_url: &Url, mesh: &TestMesh, which: Which) {
    let issuer = mesh.mesh.state.issuer_name().to_owned();
    let tokens = pb::TokenSet { issuer, which: Some(which) };
    let answer = revoke_tokens(auth_url, &platform(mesh).await, tokens).await;
    assert!(matches!(answer, Outcome::Revoked(_)), "{answer:?}");
}

async fn revoke_tokens(auth_url: &Url, own: &str, tokens: pb::TokenSet) -> Outcome {
    let request = pb::RevokeRequest { subject_token: own.to_owned(), tokens: Some(tokens) };
    let context = CallContext::new(RequestId::generate(), Duration::from_secs(10));
    let mut auth = AuthServiceClient::new(connect(auth_url).expect("a channel"));
    let answer = auth.revoke(context.outgoing(request)).await.expect("an answer");
    answer.into_inner().outcome.expect("an outcome")
}

/// The token of the platform team's workload, which may revoke.
pub(crate) async fn platform(mesh: &TestMesh) -> String {
    let state = &mesh.mesh.state;
    let own = state.workload.as_ref().expect("credentials");
    let token = caller::client_credentials(
        &state.issuer,
        &own.client_id,
        &own.client_secret,
        &state.internal_audience,
    );
    token.await.expect("a token").expose_secret().to_owned()
}

async fn status(client: &Client) -> StatusCode {
    client.call("tools/list", json!({})).await.status
}

async fn wait_for_status(client: &Client, wanted: StatusCode, since: Instant, within: Duration) {
    while status(client).await != wanted {
        assert!(since.elapsed() < within, "{wanted} takes too long");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_revocation_takes_effect_on_every_replica_survives_a_restart_and_fails_closed_without_redis()
 {
    let redis = Redis::start().await;
    let url = Some(redis.url.as_str().into());
    let mesh = TestMesh::with(|config| config.redis_url.clone_from(&url)).await;
    let auth = mesh.auth(|config| config.redis_url.clone_from(&url));
    let replica = auth.start().await;
    let other_edge =
        mesh.edge(&[], |config| config.auth_urls = vec![auth.url.clone().into()]).await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    let (alice_elsewhere, bob_elsewhere) = (other_edge.client(&alice), other_edge.client(&bob));
    let started = Instant::now();
    for client in [&alice, &bob, &alice_elsewhere, &bob_elsewhere] {
        wait_for_status(client, StatusCode::OK, started, Duration::from_secs(10)).await;
    }

    let answer = revoke(&mesh, &platform(&mesh).await, Which::Subject("alice".to_owned())).await;
    let revoked = Instant::now();
    assert!(matches!(answer, Outcome::Revoked(_)), "{answer:?}");
    for client in [&alice, &alice_elsewhere] {
        wait_for_status(client, StatusCode::UNAUTHORIZED, revoked, PROPAGATION_MAX).await;
        let refused = client.call("tools/list", json!({})).await;
        assert_eq!(refused.message(), "Unauthorized: the access token is revoked");
    }
    for client in [&bob, &bob_elsewhere] {
        assert_eq!(status(client).await, StatusCode::OK, "bob's tokens are valid");
    }

    // A token issued in a later second is valid.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let again = mesh.client("alice").await;
    assert_eq!(status(&again).await, StatusCode::OK);
    assert_eq!(status(&other_edge.client(&again)).await, StatusCode::OK);

    replica.stop().await;
    let replica = auth.start().await;
    wait_for_status(&bob_elsewhere, StatusCode::OK, Instant::now(), Duration::from_secs(10)).await;
    assert_eq!(
        status(&alice_elsewhere).await,
        StatusCode::UNAUTHORIZED,
        "a restart keeps the revocation"
    );

    drop(redis);
    let stopped = Instant::now();
    for client in [&bob, &bob_elsewhere] {
        wait_for_status(client, StatusCode::SERVICE_UNAVAILABLE, stopped, Duration::from_secs(5))
            .await;
    }
    assert_eq!(status(&bob).await, StatusCode::SERVICE_UNAVAILABLE);
    other_edge.hosted.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_single_token_and_all_tokens_of_a_client_can_be_revoked() {
    let mesh = TestMesh::start().await;
    let (first, second) = (mesh.client("alice").await, mesh.client("alice").await);
    let claims = |client: &Client| {
        let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(client.token());
        claims.expect("a token").claims
    };
    // Each sign-in registers a new client.
    let (id, client) = (&claims(&first)["jti"], &claims(&second)["client_id"]);
    let id = Which::TokenId(id.as_str().expect("an id").to_owned());
    let answer = revoke(&mesh, &platform(&mesh).await, id).await;
    let revoked = Instant::now();
    assert!(matches!(answer, Outcome::Revoked(_)), "{answer:?}");
    wait_for_status(&first, StatusCode::UNAUTHORIZED, revoked, PROPAGATION_MAX).await;
    assert_eq!(status(&second).await, StatusCode::OK);

    let client = Which::ClientId(client.as_str().expect("a client").to_owned());
    let answer = revoke(&mesh, &platform(&mesh).await, client).await;
    let revoked = Instant::now();
    assert!(matches!(answer, Outcome::Revoked(_)), "{answer:?}");
    wait_for_status(&second, StatusCode::UNAUTHORIZED, revoked, PROPAGATION_MAX).await;
}

#[tokio::test]
async fn policies_decide_who_may_revoke() {
    let mesh = TestMesh::start().await;
    let state = &mesh.mesh.state;
    let alice = sign_in(&state.issuer, &state.internal_audience, "alice", "alice").await;
    let answer = revoke(&mesh, &alice, Which::Subject("bob".to_owned())).await;
    assert!(matches!(answer, Outcome::Denied(_)), "{answer:?}");
    // A caller without permission does not learn the known issuers.
    let answer = revoke_of(&mesh, &alice, "nonsense", Which::Subject("bob".to_owned())).await;
    assert!(matches!(answer, Outcome::Denied(_)), "{answer:?}");
    let outside = mesh.client("alice").await;
    let answer = revoke(&mesh, outside.token(), Which::Subject("bob".to_owned())).await;
    assert!(matches!(answer, Outcome::Unauthenticated(_)), "a token for the edge: {answer:?}");
    assert_eq!(status(&mesh.client("bob").await).await, StatusCode::OK);
}

#[tokio::test]
async fn revoking_for_an_unknown_issuer_is_an_invalid_argument_that_lists_the_known_issuers() {
    let mesh = TestMesh::start().await;
    let (state, own) = (&mesh.mesh.state, platform(&mesh).await);
    for unknown in [format!("{}/", state.issuer_name()), "nonsense".to_owned()] {
        let which = Some(Which::Subject("alice".to_owned()));
        let tokens = Some(pb::TokenSet { issuer: unknown.clone(), which });
        let request = pb::RevokeRequest { subject_token: own.clone(), tokens };
        let context = CallContext::new(RequestId::generate(), Duration::from_secs(10));
        let mut auth = AuthServiceClient::new(connect(&state.auth_url).expect("a channel"));
        let status = auth.revoke(context.outgoing(request)).await.expect_err("an unknown issuer");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let known = format!("unknown issuer {unknown:?}; known issuers: {}", state.issuer_name());
        assert_eq!(status.message(), known);
    }
    assert_eq!(status(&mesh.client("alice").await).await, StatusCode::OK);
}

#[tokio::test]
async fn a_revocation_reports_since_when_no_such_token_was_verified() {
    let mesh = TestMesh::start().await;
    let own = platform(&mesh).await;
    let not_seen = async |subject: &str| {
        let answer = revoke(&mesh, &own, Which::Subject(subject.to_owned())).await;
        let Outcome::Revoked(revoked) = answer else { panic!("{answer:?}") };
        revoked.not_seen_since.is_some()
    };
    assert!(not_seen("alice").await, "she has presented no token yet");
    let bob = mesh.client("bob").await;
    assert_eq!(status(&bob).await, StatusCode::OK);
    assert!(!not_seen("bob").await, "an edge has presented his token");
}
