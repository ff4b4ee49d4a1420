//! Single steps of a call, in nanoseconds.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::body::Bytes;
use drawbridge_contract::{
    PolicyForm, built_in,
    dynamic::{MessageType, WireMessage, from_json, to_json},
};
use drawbridge_tests::TestMesh;
use drawbridge_transport::{
    fetch::{Fetcher, NetworkScope},
    jwks::{Jwks, JwksLimits, KeySource},
    transaction_token::{ALGORITHM, TransactionClaims, Verifier},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation, decode, decode_header, encode};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};

use crate::{baselines::RPC, paths::Tokens};

/// The step with a budget: from a result's wire bytes to the JSON text of its content block.
pub(crate) const WIRE_TO_TEXT: &str = "result of 10 matches: wire to text";
const MEASURED: Duration = Duration::from_millis(40);
const BATCHES: usize = 5;

/// A step and its duration in nanoseconds.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) nanoseconds: f64,
}

/// The median of some batches.
fn time<T>(name: &'static str, mut step: impl FnMut() -> T) -> Step {
    let mut batches: Vec<_> = (0..BATCHES)
        .map(|_| {
            let (started, mut calls) = (Instant::now(), 0_u32);
            while started.elapsed() < MEASURED {
                for _ in 0..16 {
                    black_box(step());
                }
                calls += 16;
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    Step { name, nanoseconds: batches[BATCHES / 2] }
}

pub(crate) async fn all(mesh: &TestMesh, tokens: &Tokens) -> Vec<Step> {
    tokens.renew(mesh).await;
    let mut steps = conversion();
    steps.extend(identity(mesh, tokens).await);
    steps
}

fn message(name: &str) -> MessageDescriptor {
    let pool = built_in().expect("the contracts");
    pool.get_message_by_name(&format!("drawbridge.code.v1.{name}")).expect("a message")
}

/// From JSON to a message on the wire, and back.
fn conversion() -> Vec<Step> {
    let (request, result) = (message("SearchRequest"), message("SearchResult"));
    let arguments =
        json!({ "query": "fn main", "glob": "**/*.rs", "context_lines": 2, "max_results": 50 });
    let found = json!({
        "path": "services/edge/src/admission.rs", "line_number": 75, "line": "pub(crate) async fn admit(",
        "before": ["", "/// Admits a request or rejects it."], "after": ["    State(admission),", "    request,"],
    });
    let matches = json!({ "matches": vec![found; 10], "truncated": false, "files_searched": 120 });
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "code_search", "arguments": arguments },
    });
    let body = body.to_string();
    let input = from_json(request.clone(), &arguments).expect("a request");
    let output = from_json(result.clone(), &matches).expect("a result");
    let wire = output.encode_to_vec();
    let (of, bytes) = (Arc::new(MessageType::new(result.clone())), Bytes::from(wire.clone()));
    let form = PolicyForm::for_message(&request);
    let decoded = || DynamicMessage::decode(result.clone(), wire.as_slice()).expect("a result");
    vec![
        time("parse the body", || serde_json::from_str::<Value>(&body).expect("JSON")),
        time("arguments: JSON to message", || {
            from_json(request.clone(), &arguments).expect("a request")
        }),
        time("arguments: message to policy's JSON", || form.json(&input).to_string()),
        time("arguments: message to wire", || input.encode_to_vec()),
        time("result of 10 matches: wire to message", decoded),
        time("result of 10 matches: message to JSON", || to_json(&output).expect("JSON")),
        time("result of 10 matches: by a message to text", || {
            to_json(&decoded()).expect("JSON").to_string()
        }),
        time(WIRE_TO_TEXT, || {
            WireMessage::new(Arc::clone(&of), bytes.clone()).json_text().expect("JSON")
        }),
    ]
}

/// Signatures of the client's token and of the transaction token.
async fn identity(mesh: &TestMesh, tokens: &Tokens) -> Vec<Step> {
    let verifier =
        Verifier::new("test", "drawbridge-auth", mesh.transaction_keys()).expect("a verifier");
    let transaction = tokens.transaction();
    let caller = verifier.verify(Some(&transaction), RPC).await.expect("a caller");

    let header = decode_header(&tokens.access).expect("a header");
    let keys = mesh.mesh.state.issuer.join("/.well-known/jwks.json").expect("a URL");
    let fetcher = Fetcher::new(NetworkScope::Anywhere).expect("an HTTP client");
    let keys = Jwks::new(KeySource::Url(keys, fetcher), JwksLimits::default());
    let key = keys.key(header.kid.as_deref().expect("a key id")).await.expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[mesh.mesh.state.issuer.as_str().trim_end_matches('/')]);
    validation.set_audience(&[mesh.mesh.mcp_url.as_str()]);

    let pair = Ed25519KeyPair::generate().expect("a key pair");
    let signing = EncodingKey::from_ed_der(pair.to_pkcs8v1().expect("a document").as_ref());
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        vec![
            time("verify an access token (ES256)", || {
                let header = decode_header(&tokens.access).expect("a header");
                (
                    header,
                    decode::<Value>(&tokens.access, &key.key, &validation.clone()).expect("claims"),
                )
            }),
            time("sign a transaction token (EdDSA)", || {
                encode::<TransactionClaims>(&Header::new(ALGORITHM), &caller.claims, &signing)
                    .expect("a token")
            }),
            time("verify a cached transaction token", || {
                handle.block_on(verifier.verify(Some(&transaction), RPC)).expect("a caller")
            }),
        ]
    })
}
