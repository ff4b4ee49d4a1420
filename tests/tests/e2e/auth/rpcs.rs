//! Every RPC of every service, found by reflection, refuses whoever has no token for it.

use std::collections::BTreeSet;

use drawbridge_cli::mesh::Hosted;
use drawbridge_sdk::{
    Listen, TelemetryConfig,
    identity::{Principal, TransactionClaims, TransactionContext},
};
use drawbridge_tests::{
    TestIssuer, TestMesh, conformance::Conformance, now, repository, serve_conformance,
};
use jsonwebtoken::Algorithm;
use prost_reflect::MethodDescriptor;
use tonic::Code;
use url::Url;

use crate::identity::{answer_of, call_with, contract, transaction_token};

/// RPCs of tool services that anybody may call. It may only shrink.
const OPEN: [&str; 0] = [];
/// RPCs of auth that take no token: this one says that something has changed, and nothing of anybody. It may only
/// shrink.
const OPEN_OF_AUTH: [&str; 1] = ["drawbridge.auth.v1.AuthService.Watch"];

/// The RPCs of a service.
async fn methods(url: &Url) -> Vec<MethodDescriptor> {
    let contract = contract(url).await;
    let services = contract.services.iter();
    let services = services.map(|name| contract.pool.get_service_by_name(name).expect("a service"));
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn rpc(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

#[tokio::test]
async fn every_rpc_of_the_mesh_refuses_no_token_and_real_tokens_for_something_else() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_service, conformance, _edge) = mesh.conformance(|_| {}).await;
    let search =
        transaction_token(&mesh, "drawbridge.code.v1.CodeService/Search").await.expect("a token");
    let list = transaction_token(&mesh, "drawbridge.code.v1.CodeService/ListFiles")
        .await
        .expect("a token");
    let test =
        transaction_token(&mesh, "drawbridge.conformance.v1.ConformanceService/SimpleText").await;
    let test = test.expect("a token");
    let outside = mesh.client("alice").await;
    let conformance = mesh.grpc_url(&conformance.running.address);
    let mut walked = 0;
    for url in mesh.mesh.state.services.values().chain([&conformance]) {
        for method in methods(url).await.iter().filter(|method| !OPEN.contains(&method.full_name()))
        {
            let others = [&search, &list, &test].into_iter().map(String::as_str);
            let own = match method.full_name() {
                "drawbridge.code.v1.CodeService.Search" => &search,
                "drawbridge.code.v1.CodeService.ListFiles" => &list,
                "drawbridge.conformance.v1.ConformanceService.SimpleText" => &test,
                _ => "",
            };
            let wrong =
                others.filter(|other| *other != own).chain(["", "nonsense", outside.token()]);
            for token in wrong.map(Some).chain([None]) {
                let code = call_with(url, method, token).await;
                assert_eq!(code, Code::Unauthenticated, "{} with {token:?}", method.full_name());
            }
            walked += 1;
        }
    }
    assert!(walked > 20, "{walked}");
}

#[tokio::test]
async fn every_rpc_of_auth_knows_nobody_without_a_token() {
    let mesh = TestMesh::start().await;
    let url = &mesh.mesh.state.auth_url;
    let methods = methods(url).await;
    for method in methods.iter().filter(|method| !OPEN_OF_AUTH.contains(&method.full_name())) {
        let answer = answer_of(url, method).await;
        let refused = answer.as_ref().map_or_else(
            |status| matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument),
            |answer| answer.get("unauthenticated").is_some(),
        );
        assert!(refused, "{}: {answer:?}", method.full_name());
    }
    assert!(methods.len() >= 3);
}

/// A service that takes its callers' tokens from keys of the test, and its namespace.
async fn services(keys: &TestIssuer) -> Vec<(&'static str, Hosted)> {
    let jwks_url = keys.url.join("/jwks").expect("a URL");
    let free = || Listen::bind("127.0.0.1:0".parse().expect("an address")).expect("a port").0;
    // Each refusal is logged.
    let telemetry = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
    let config = drawbridge_code::Config {
        listen: free(),
        admin_listen: free(),
        ..drawbridge_code::Config::new(repository(), jwks_url.clone())
    };
    let code = Hosted::start("code", &telemetry, |telemetry| async move {
        drawbridge_code::start(config, &telemetry).await
    });
    let config = drawbridge_invoices::Config::new(
        "sqlite::memory:".into(),
        jwks_url.clone(),
        jwks_url.clone(),
    );
    let invoices = Hosted::start("invoices", &telemetry, |telemetry| async move {
        drawbridge_invoices::start(config, &telemetry).await
    });
    let config = drawbridge_tickets::Config {
        sample_helpdesk: true,
        ..drawbridge_tickets::Config::new(jwks_url.clone(), jwks_url.clone())
    };
    let tickets = Hosted::start("tickets", &telemetry, |telemetry| async move {
        drawbridge_tickets::start(config, &telemetry).await
    });
    let listen = free();
    let conformance = Hosted::start("conformance", &telemetry, |telemetry| async move {
        Conformance::default().start(listen, jwks_url, &telemetry).await
    });
    vec![
        ("code", code.await.expect("a service")),
        ("invoices", invoices.await.expect("a service")),
        ("tickets", tickets.await.expect("a service")),
        ("test", conformance.await.expect("a service")),
    ]
}

pub(crate) fn claims(service: &str, rpc: &str) -> TransactionClaims {
    TransactionClaims {
        iss: "drawbridge-auth".to_owned(),
        aud: service.to_owned(),
        sub: "erin".to_owned(),
        iat: now(),
        exp: now() + 30,
        txn: "test".to_owned(),
        scope: String::new(),
        tctx: TransactionContext {
            iss: "https://idp.example".to_owned(),
            principal: Principal::new("https://idp.example", "erin", None),
            tenant: None,
            client_id: "test".to_owned(),
            tool: "test".to_owned(),
            rpc: rpc.to_owned(),
            message_sha256: None,
            facts: None,
        },
        act: None,
    }
}

/// Transaction tokens that open nothing: why, and which.
fn forged(keys: &TestIssuer, service: &str, rpc: &str) -> Vec<(&'static str, String)> {
    let good = claims(service, rpc);
    let token = |claims: &TransactionClaims| sign(keys, claims, "txntoken+jwt", Algorithm::EdDSA);
    vec![
        (
            "has expired",
            token(&TransactionClaims { iat: now() - 100, exp: now() - 60, ..good.clone() }),
        ),
        (
            "is for another service",
            token(&TransactionClaims { aud: "another".to_owned(), ..good.clone() }),
        ),
        ("is for nobody", token(&TransactionClaims { aud: String::new(), ..good.clone() })),
        ("is for another tool", token(&claims(service, "drawbridge.code.v1.CodeService/Nothing"))),
        ("is for all tools", token(&claims(service, "*"))),
        ("is for no tool", token(&claims(service, ""))),
        (
            "is another issuer's",
            token(&TransactionClaims { iss: "https://evil.example".to_owned(), ..good.clone() }),
        ),
        ("is an access token", sign(keys, &good, "at+jwt", Algorithm::EdDSA)),
        ("is of no type", sign(keys, &good, "JWT", Algorithm::EdDSA)),
        ("is signed by another algorithm", sign(keys, &good, "txntoken+jwt", Algorithm::ES256)),
        ("is not signed", {
            let token = token(&good);
            let (message, _) = token.rsplit_once('.').expect("a signature");
            format!("{message}.")
        }),
    ]
}

pub(crate) fn sign(
    keys: &TestIssuer,
    claims: &TransactionClaims,
    typ: &str,
    algorithm: Algorithm,
) -> String {
    let mut header = keys.header_of(algorithm);
    header.typ = Some(typ.to_owned());
    keys.sign(&header, &serde_json::to_value(claims).expect("JSON"))
}

#[tokio::test]
async fn every_rpc_refuses_a_transaction_token_that_is_old_or_for_another() {
    let (keys, stranger) =
        (TestIssuer::with_every_algorithm().await, TestIssuer::with_every_algorithm().await);
    let services = services(&keys).await;
    let (mut walked, mut refused) = (BTreeSet::new(), 0);
    for (namespace, service) in &services {
        let url = format!("http://{}", service.running.address).parse().expect("a URL");
        for method in &methods(&url).await {
            let rpc = rpc(method);
            let good = sign(&keys, &claims(namespace, &rpc), "txntoken+jwt", Algorithm::EdDSA);
            let code = call_with(&url, method, Some(&good)).await;
            assert_ne!(code, Code::Unauthenticated, "{rpc}: the honest token is let in");
            let by_stranger =
                sign(&stranger, &claims(namespace, &rpc), "txntoken+jwt", Algorithm::EdDSA);
            for (why, token) in
                forged(&keys, namespace, &rpc).into_iter().chain([("is a stranger's", by_stranger)])
            {
                let code = call_with(&url, method, Some(&token)).await;
                assert_eq!(code, Code::Unauthenticated, "{rpc} with a token that {why}");
                refused += 1;
            }
            walked.insert(rpc);
        }
    }
    // A service that joins the mesh joins this walk.
    let mesh = TestMesh::start().await;
    for url in mesh.mesh.state.services.values() {
        for method in &methods(url).await {
            assert!(walked.contains(&rpc(method)), "{} is not walked", rpc(method));
        }
    }
    println!("{} RPCs refused {refused} transaction tokens", walked.len());
}
