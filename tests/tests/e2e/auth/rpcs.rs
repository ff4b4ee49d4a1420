//! Every RPC of every service, enumerated by reflection, rejects callers without a token for it.

use std::collections::BTreeSet;

use drawbridge_mesh::HostedService;
use drawbridge_runtime::{Listen, TelemetryConfig};
use drawbridge_sdk::ToolServiceConfig;
use drawbridge_tests::{
    TestIssuer, TestMesh, conformance::Conformance, now, repository, serve_conformance,
};
use drawbridge_transport::transaction_token::{
    ALGORITHM, Principal, TOKEN_TYPE, TransactionClaims, TransactionContext, message_digest,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost_reflect::MethodDescriptor;
use serde_json::json;
use tonic::Code;
use url::Url;

use crate::identity::{call_with, contract, response_of, transaction_token};

/// RPCs of tool services that need no token. This list may only shrink.
const OPEN: [&str; 0] = [];
/// RPCs of auth that need no token: Watch publishes that something changed, without any caller's
/// data. This list may only shrink.
const OPEN_OF_AUTH: [&str; 1] = ["drawbridge.auth.v1.AuthService.Watch"];
/// How many kinds of calls without a valid token every RPC rejects. It may only grow.
const REJECTED_MIN: usize = 35;

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
                let code = call_with(url, method, token.as_slice()).await;
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

/// What a call without a valid transaction token carries, each with its fault.
fn forged(keys: &TestIssuer, service: &str, rpc: &str) -> Vec<(&'static str, Vec<String>)> {
    let good = claims(service, rpc);
    let token = |claims: &TransactionClaims| sign(keys, claims, TOKEN_TYPE, ALGORITHM);
    let without = |name: &str| {
        let mut claims = json!(good);
        claims.as_object_mut().expect("an object").remove(name);
        keys.sign(&header(keys, TOKEN_TYPE, ALGORITHM), &claims)
    };
    let mut several = json!(good);
    several["aud"] = json!([service, "another"]);
    let mut other_message = good.clone();
    other_message.tctx.message_sha256 = Some(message_digest(&[7; 32]));
    let faulty = [
        (
            "has expired",
            token(&TransactionClaims { iat: now() - 100, exp: now() - 60, ..good.clone() }),
        ),
        ("never expires", without("exp")),
        (
            "is for another service",
            token(&TransactionClaims { aud: "another".to_owned(), ..good.clone() }),
        ),
        ("is for several services", keys.sign(&header(keys, TOKEN_TYPE, ALGORITHM), &several)),
        ("is for no service", token(&TransactionClaims { aud: String::new(), ..good.clone() })),
        ("has no audience", without("aud")),
        ("is for another tool", token(&claims(service, "drawbridge.code.v1.CodeService/Nothing"))),
        ("is for all tools", token(&claims(service, "*"))),
        ("is for no tool", token(&claims(service, ""))),
        ("is for another message", token(&other_message)),
        ("has no context", without("tctx")),
        ("has no subject", without("sub")),
        (
            "is another issuer's",
            token(&TransactionClaims { iss: "https://evil.example".to_owned(), ..good.clone() }),
        ),
        ("has no issuer", without("iss")),
        ("is empty", String::new()),
        ("is nonsense", "nonsense".to_owned()),
    ];
    let one = |(why, token)| (why, vec![token]);
    let faulty = faulty.into_iter().chain(badly_signed(keys, &good)).map(one);
    let twice = ("is there twice", vec![token(&good), token(&good)]);
    faulty.chain([twice, ("is missing", Vec::new())]).collect()
}

/// Tokens with the claims of a valid one, which auth has not signed as a transaction token.
fn badly_signed(keys: &TestIssuer, good: &TransactionClaims) -> Vec<(&'static str, String)> {
    let signed = |typ, algorithm| sign(keys, good, typ, algorithm);
    let with_key = |id: Option<&str>| {
        let header = Header { kid: id.map(str::to_owned), ..header(keys, TOKEN_TYPE, ALGORITHM) };
        keys.sign(&header, &json!(good))
    };
    let token = signed(TOKEN_TYPE, ALGORITHM);
    let (message, signature) = token.rsplit_once('.').expect("a signature");
    let other = TransactionClaims { sub: "mallory".to_owned(), ..good.clone() };
    let other = sign(keys, &other, TOKEN_TYPE, ALGORITHM);
    let (other_message, _) = other.rsplit_once('.').expect("a signature");
    let id = header(keys, TOKEN_TYPE, ALGORITHM).kid.expect("a key id");
    let unsigned = json!({ "alg": "none", "typ": TOKEN_TYPE, "kid": id }).to_string();
    let unsigned = keys.sign_text(ALGORITHM, &unsigned, &json!(good).to_string());
    let shared = Header { alg: Algorithm::HS256, ..header(keys, TOKEN_TYPE, ALGORITHM) };
    let mut tokens = vec![
        ("is an access token", signed("at+jwt", ALGORITHM)),
        ("is of no type", signed("JWT", ALGORITHM)),
        ("is signed by another algorithm", signed(TOKEN_TYPE, Algorithm::ES256)),
        ("names no key", with_key(None)),
        ("names an unknown key", with_key(Some("unknown"))),
        ("is not signed", format!("{message}.")),
        ("has the signature of other claims", format!("{other_message}.{signature}")),
        ("needs no signature", {
            let (message, _) = unsigned.rsplit_once('.').expect("a signature");
            format!("{message}.")
        }),
    ];
    // The public key as a shared secret, in each of its forms.
    for secret in keys.public_forms(ALGORITHM) {
        let token = jsonwebtoken::encode(&shared, good, &EncodingKey::from_secret(&secret));
        tokens.push(("is signed by the public key", token.expect("a token")));
    }
    tokens
}

fn header(keys: &TestIssuer, typ: &str, algorithm: Algorithm) -> Header {
    Header { typ: Some(typ.to_owned()), ..keys.header_of(algorithm) }
}

pub(crate) fn sign(
    keys: &TestIssuer,
    claims: &TransactionClaims,
    typ: &str,
    algorithm: Algorithm,
) -> String {
    keys.sign(&header(keys, typ, algorithm), &json!(claims))
}

/// Checks that every RPC of a service that trusts `keys` accepts a valid transaction token, and
/// rejects a missing and every invalid one. The service may be in any language. Returns the RPCs.
pub(crate) async fn check_rejections(
    url: &Url,
    namespace: &str,
    keys: &TestIssuer,
    untrusted: &TestIssuer,
) -> BTreeSet<String> {
    let (mut checked, mut accepted) = (BTreeSet::new(), Vec::new());
    for method in &methods(url).await {
        let rpc = rpc(method);
        let valid = |keys| sign(keys, &claims(namespace, &rpc), TOKEN_TYPE, ALGORITHM);
        let code = call_with(url, method, &[&valid(keys)]).await;
        assert_ne!(code, Code::Unauthenticated, "{rpc}: the valid token is accepted");
        let untrusted = ("has an untrusted signer", vec![valid(untrusted)]);
        let invalid: Vec<_> =
            forged(keys, namespace, &rpc).into_iter().chain([untrusted]).collect();
        assert!(invalid.len() >= REJECTED_MIN, "{invalid:?}");
        for (why, tokens) in invalid {
            let tokens: Vec<_> = tokens.iter().map(String::as_str).collect();
            let code = call_with(url, method, &tokens).await;
            if code != Code::Unauthenticated {
                accepted.push(format!("{rpc}, {code:?}: a token that {why}"));
            }
        }
        checked.insert(rpc);
    }
    assert!(accepted.is_empty(), "{}", accepted.join("\n"));
    checked
}

#[tokio::test]
async fn every_rpc_rejects_an_expired_foreign_or_forged_transaction_token() {
    let (keys, untrusted) =
        (TestIssuer::with_every_algorithm().await, TestIssuer::with_every_algorithm().await);
    let services = services(&keys).await;
    let mut checked = BTreeSet::new();
    for (namespace, service) in &services {
        let url = format!("http://{}", service.running.address).parse().expect("a URL");
        checked.extend(check_rejections(&url, namespace, &keys, &untrusted).await);
    }
    // A new service of the mesh must join this test.
    let mesh = TestMesh::start().await;
    for url in mesh.mesh.state.services.values() {
        for method in &methods(url).await {
            assert!(checked.contains(&rpc(method)), "{} is not checked", rpc(method));
        }
    }
}
