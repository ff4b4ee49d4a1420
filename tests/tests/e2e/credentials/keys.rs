use drawbridge_credentials::CredentialsError;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, exchange_response::Outcome,
};
use drawbridge_tests::{TestIssuer, connect, now};
use drawbridge_transport::transaction_token::{Principal, TransactionClaims};
use jsonwebtoken::Algorithm;

use super::*;
use crate::auth::rpcs::{claims, sign};

/// A world whose Vault trusts the test's issuer, which signs tokens that auth would not.
pub(super) async fn world_of(issuer: &TestIssuer) -> World {
    let keys = issuer.url.join("/jwks").expect("a URL");
    Box::pin(World::start(|setup| setup.jwks_url = keys)).await
}

/// A caller with an unverified token, as a service with a wrong clock sees it.
pub(super) fn caller_of(
    issuer: &TestIssuer,
    subject: &str,
    change: impl FnOnce(&mut TransactionClaims),
) -> VerifiedCaller {
    let mut claims = claims("code", RPC);
    subject.clone_into(&mut claims.sub);
    claims.tctx.tenant = Some("acme".to_owned());
    claims.tctx.principal = Principal::new(&claims.tctx.iss, subject, Some("acme"));
    change(&mut claims);
    let token = sign(issuer, &claims, "txntoken+jwt", Algorithm::EdDSA);
    VerifiedCaller { claims: Arc::new(claims), token: Arc::new(token.into()) }
}

#[tokio::test]
async fn vault_tolerates_five_seconds_of_clock_skew_and_rejects_expired_tokens() {
    let issuer = TestIssuer::with_every_algorithm().await;
    let world = world_of(&issuer).await;
    let credentials = world.credentials();
    for (subject, issued, expires, is_valid) in [
        ("now", 0, 30, true),
        ("a little early", 3, 33, true),
        ("far too early", 30, 60, false),
        ("a little late", -32, -2, true),
        // A minute after it was minted.
        ("stolen", -60, -30, false),
    ] {
        let caller = caller_of(&issuer, subject, |claims| {
            (claims.iat, claims.exp) = (now() + issued, now() + expires);
        });
        match credentials.database(&caller, &context(), ROLE).await {
            Ok(_) => assert!(is_valid, "{subject}"),
            Err(error) => {
                assert!(
                    !is_valid && matches!(error, CredentialsError::Refused { .. }),
                    "{subject}: {error:?}"
                );
                assert_eq!(tonic::Status::from(error).code(), tonic::Code::PermissionDenied);
            }
        }
    }
    credentials.close().await;
}

#[tokio::test]
async fn vault_fetches_the_new_keys_of_a_restarted_auth() {
    let mut world = World::bare().await;
    let auth = world.mesh.auth(|_| {});
    let running = auth.start().await;
    world.setup.jwks_url = auth.keys.clone();
    world.bootstrap().await;
    let credentials = world.credentials();
    let own = sign_in(&world.mesh.mesh.state.issuer, "drawbridge-auth", "alice", "alice").await;
    let caller = async || {
        let request = pb::ExchangeRequest {
            subject_token: own.clone(),
            rpc: RPC.to_owned(),
            ..Default::default()
        };
        let mut client = AuthServiceClient::new(connect(&auth.url).expect("a channel"));
        let answer =
            client.exchange(context().outgoing(request)).await.expect("an answer").into_inner();
        let Some(Outcome::Allowed(allowed)) = answer.outcome else { panic!("{answer:?}") };
        let token = allowed.transaction_token.expect("a token").token;
        let verifier =
            Verifier::new("code", "drawbridge-auth", auth.keys.clone()).expect("a verifier");
        verifier.verify(Some(&token), RPC).await.expect("a caller")
    };
    let first = caller().await;
    let lease = credentials.database(&first, &context(), ROLE).await.expect("a lease");
    credentials.revoke(first.principal()).await;
    assert!(!lease.is_usable());

    running.stop().await;
    let running = auth.start().await;
    let second = caller().await;
    credentials.database(&second, &context(), ROLE).await.expect("a lease by the new key");
    // Auth no longer publishes the old key.
    let refused =
        world.credentials().database(&first, &context(), ROLE).await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { .. }), "{refused:?}");
    credentials.close().await;
    running.stop().await;
}
