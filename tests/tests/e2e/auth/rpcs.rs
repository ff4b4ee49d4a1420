//! Every RPC of every service, enumerated by reflection, rejects callers without a token for it.

use std::collections::BTreeSet;

use drawbridge_mesh::HostedService;
use drawbridge_runtime::{Listen, TelemetryConfig};
use drawbridge_sdk::ToolServiceConfig;
use drawbridge_tests::{
    TestIssuer, TestMesh, conformance::Conformance, now, repository, serve_conformance,
};
use drawbridge_transport::transaction_token::{Principal, TransactionClaims, TransactionContext};
use jsonwebtoken::Algorithm;
use prost_reflect::MethodDescriptor;
use tonic::Code;
use url::Url;

use crate::identity::{call_with, contract, response_of, transaction_token};

/// RPCs of tool services that need no token. This list may only shrink.
const OPEN: [&str; 0] = [];
/// RPCs of auth that need no token: Watch publishes that something changed, without any caller's
/// data. This list may only shrink.
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
async fn every_rpc_of_the_mesh_rejects_a_missing_token_and_a_token_for_another_rpc() {
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
    let mut checked = 0;
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
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

#[tokio::test]
async fn every_rpc_of_auth_rejects_unauthenticated_callers() {
    let mesh = TestMesh::start().await;
    let url = &mesh.mesh.state.auth_url;
    let methods = methods(url).await;
    for method in methods.iter().filter(|method| !OPEN_OF_AUTH.contains(&method.full_name())) {
        let answer = response_of(url, method).await;
        let refused = answer.as_ref().map_or_else(
            |status| matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument),
            |answer| answer.get("unauthenticated").is_some(),
        );
        assert!(refused, "{}: {answer:?}", method.full_name());
    }
    assert!(methods.len() >= 3);
}

/// Services that trust the test's transaction keys, each with its namespace.
async fn services(keys: &TestIssuer) -> Vec<(&'static str, HostedService)> {
    let jwks_url = keys.url.join("/jwks").expect("a URL");
    // Each rejection is logged at a lower level.
    let telemetry = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
    let service = ToolServiceConfig::on_free_ports(jwks_url.clone());
    let config = drawbridge_code::Config::new(repository(), service);
    let code = HostedService::start("code", &telemetry, |telemetry| async move {
        drawbridge_code::start(config, &telemetry).await
    });
    let config = drawbridge_invoices::Config::new(
        "sqlite::memory:".into(),
        jwks_url.clone(),
        ToolServiceConfig::on_free_ports(jwks_url.clone()),
    );
    let invoices = HostedService::start("invoices", &telemetry, |telemetry| async move {
        drawbridge_invoices::start(config, &telemetry).await
    });
    let service = ToolServiceConfig::on_free_ports(jwks_url.clone());
    let config = drawbridge_tickets::Config {
        sample_helpdesk: true,
        ..drawbridge_tickets::Config::new(jwks_url.clone(), service)
    };
    let tickets = HostedService::start("tickets", &telemetry, |telemetry| async move {
        drawbridge_tickets::start(config, &telemetry).await
    });
    let (listen, _) = Listen::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let conformance = HostedService::start("conformance", &telemetry, |telemetry| async move {
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

/// Invalid transaction tokens, each with its fault.
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
        ("has no audience", token(&TransactionClaims { aud: String::new(), ..good.clone() })),
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

/// Checks that every RPC of a service that trusts `keys` accepts a valid transaction token, and
/// rejects a missing and every invalid one. Returns the RPCs and the number of rejected calls.
pub(crate) async fn check_rejections(
    url: &Url,
    namespace: &str,
    keys: &TestIssuer,
    untrusted: &TestIssuer,
) -> (BTreeSet<String>, usize) {
    let (mut checked, mut rejected) = (BTreeSet::new(), 0);
    for method in &methods(url).await {
        let rpc = rpc(method);
        let sign = |keys| sign(keys, &claims(namespace, &rpc), "txntoken+jwt", Algorithm::EdDSA);
        let code = call_with(url, method, Some(&sign(keys))).await;
        assert_ne!(code, Code::Unauthenticated, "{rpc}: the valid token is accepted");
        let untrusted = ("has an untrusted signer", sign(untrusted));
        let invalid = forged(keys, namespace, &rpc).into_iter().chain([untrusted]);
        for (why, token) in
            invalid.map(|(why, token)| (why, Some(token))).chain([("is missing", None)])
        {
            let code = call_with(url, method, token.as_deref()).await;
            assert_eq!(code, Code::Unauthenticated, "{rpc} with a token that {why}");
            rejected += 1;
        }
        checked.insert(rpc);
    }
    (checked, rejected)
}

#[tokio::test]
async fn every_rpc_rejects_an_expired_foreign_or_forged_transaction_token() {
    let (keys, untrusted) =
        (TestIssuer::with_every_algorithm().await, TestIssuer::with_every_algorithm().await);
    let services = services(&keys).await;
    let (mut checked, mut rejected) = (BTreeSet::new(), 0);
    for (namespace, service) in &services {
        let url = format!("http://{}", service.running.address).parse().expect("a URL");
        let (rpcs, tokens) = check_rejections(&url, namespace, &keys, &untrusted).await;
        checked.extend(rpcs);
        rejected += tokens;
    }
    // A new service of the mesh must join this test.
    let mesh = TestMesh::start().await;
    for url in mesh.mesh.state.services.values() {
        for method in &methods(url).await {
            assert!(checked.contains(&rpc(method)), "{} is not checked", rpc(method));
        }
    }
    println!("{} RPCs rejected {rejected} transaction tokens", checked.len());
}
