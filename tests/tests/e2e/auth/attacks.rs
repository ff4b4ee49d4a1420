//! A table of good and forged tokens, presented to a real auth service that fetches keys from real
//! issuers.

use std::{fs, time::Duration};

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response::Outcome,
    operation::Kind,
};
use drawbridge_runtime::RequestId;
use drawbridge_tests::{TestIssuer, TestMesh, connect};
use drawbridge_transport::CallContext;
use http::{HeaderValue, StatusCode};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tonic::transport::Channel;

mod claims;
mod good;
mod headers;
mod shapes;
mod signatures;

/// Every algorithm that the product accepts.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

/// One token, presented at one endpoint.
struct Case {
    name: String,
    token: String,
    resource: String,
    good: bool,
}

struct Table {
    /// A trusted issuer, with keys for every algorithm.
    main: TestIssuer,
    /// A trusted issuer that must sign with RS256 and mark its tokens, and that knows the edge as
    /// `api://drawbridge`.
    strict: TestIssuer,
    /// An untrusted issuer with the key ids of the trusted ones.
    untrusted: TestIssuer,
    /// The edge's URL.
    edge: String,
    cases: Vec<Case>,
}

impl Table {
    fn good(&mut self, name: impl Into<String>, token: String) {
        self.good_at("", name, token);
    }

    fn good_at(&mut self, below: &str, name: impl Into<String>, token: String) {
        self.add(below, name.into(), token, true);
    }

    fn bad(&mut self, name: impl Into<String>, token: String) {
        self.bad_at("", name, token);
    }

    fn bad_at(&mut self, below: &str, name: impl Into<String>, token: String) {
        self.add(below, name.into(), token, false);
    }

    fn add(&mut self, below: &str, name: String, token: String, good: bool) {
        self.cases.push(Case { name, token, resource: format!("{}{below}", self.edge), good });
    }

    /// The main issuer's honest claims.
    fn claims(&self) -> Value {
        self.main.claims(&self.edge)
    }

    /// The main issuer's honest token of this algorithm, with these claims.
    fn sign(&self, algorithm: Algorithm, claims: &Value) -> String {
        self.main.sign(&self.main.header_of(algorithm), claims)
    }

    /// The main issuer's honest claims, with a header changed by `over`.
    fn under(&self, algorithm: Algorithm, over: &Value) -> String {
        let header =
            with(&serde_json::to_value(self.main.header_of(algorithm)).expect("JSON"), over);
        self.main.sign_text(algorithm, &header.to_string(), &self.claims().to_string())
    }
}

/// `json` with the members of `over`; null removes a member.
fn with(json: &Value, over: &Value) -> Value {
    let mut json = json.clone();
    for (name, value) in over.as_object().expect("an object") {
        if value.is_null() {
            json.as_object_mut().expect("an object").remove(name);
        } else {
            json[name] = value.clone();
        }
    }
    json
}

async fn start() -> (TestMesh, Table) {
    let main = TestIssuer::with_every_algorithm().await;
    let (strict, untrusted) =
        (TestIssuer::with_every_algorithm().await, TestIssuer::with_every_algorithm().await);
    let mesh = TestMesh::with(|config| {
        let file = config.policies.join("issuers.toml");
        let text = format!(
            r#"
            [[issuers]]
            issuer = "{}"
            audiences = ["api://drawbridge"]
            algorithms = ["RS256"]
            require_at_jwt = true
            leeway_seconds = 0
            allow_private_addresses = true
            "#,
            strict.name()
        );
        fs::write(&file, text).expect("a file");
        config.issuer = Some(main.url.clone().into());
        config.issuers = Some(file);
    });
    let mesh = mesh.await;
    let edge = mesh.mesh.mcp_url.to_string();
    let mut table = Table { main, strict, untrusted, edge, cases: Vec::new() };
    good::add(&mut table);
    claims::add(&mut table);
    headers::add(&mut table);
    signatures::add(&mut table);
    shapes::add(&mut table);
    (mesh, table)
}

/// Whether auth accepts the token. `None` means that auth reached no verdict, which fails the test.
async fn is_accepted(auth: &mut AuthServiceClient<Channel>, case: &Case) -> Option<bool> {
    let request = pb::AuthorizeRequest {
        access_token: case.token.clone(),
        operation: Some(pb::Operation { kind: Kind::Connect.into(), ..Default::default() }),
        resource: case.resource.clone(),
        ..Default::default()
    };
    let context = CallContext::new(RequestId::generate(), Duration::from_secs(10));
    match auth.authorize(context.outgoing(request)).await.ok()?.into_inner().outcome? {
        Outcome::Allowed(_) => Some(true),
        Outcome::Unauthenticated(_) => Some(false),
        _ => None,
    }
}

#[tokio::test]
async fn no_token_of_the_attack_table_is_wrongly_accepted_or_rejected() {
    let (mesh, table) = start().await;
    let channel = connect(&mesh.mesh.state.auth_url).expect("a channel");
    let mut auth = AuthServiceClient::new(channel);
    let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
    for case in &table.cases {
        match is_accepted(&mut auth, case).await {
            Some(verdict) if verdict == case.good => {}
            Some(true) => accepted.push(&case.name),
            Some(false) => rejected.push(&case.name),
            None => panic!("{}: no verdict", case.name),
        }
    }
    let good = table.cases.iter().filter(|case| case.good).count();
    println!(
        "attack table: {} tokens, {good} of them good: {} wrong accepts, {} wrong rejects",
        table.cases.len(),
        accepted.len(),
        rejected.len()
    );
    assert!(table.cases.len() >= 500 && good >= 100 && table.cases.len() - good >= 400);
    assert!(accepted.is_empty(), "wrongly accepted: {accepted:#?}");
    assert!(rejected.is_empty(), "wrongly rejected: {rejected:#?}");
    // Unknown key ids do not trigger unbounded fetches.
    assert!(table.main.keys_fetched() <= 3, "{}", table.main.keys_fetched());
    assert_eq!(table.untrusted.keys_fetched(), 0);
    let (good, bad) = check_edge(&mesh, &table).await;
    println!("through the edge: {good} good tokens accepted, {bad} bad ones rejected");
    assert!(good > 5 && bad > 20);
    // The log contains no part of any token.
    let log = mesh.log();
    for case in table.cases.iter().filter(|case| case.token.len() > 100) {
        let signature = case.token.rsplit('.').next().unwrap_or_default();
        assert!(signature.len() < 20 || !log.contains(signature), "{}: in the log", case.name);
    }
}

/// Sends a sample of the table through the edge. Returns its number of good and bad tokens.
async fn check_edge(mesh: &TestMesh, table: &Table) -> (usize, usize) {
    let client = mesh.anonymous();
    let body =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} }).to_string();
    let (mut good, mut bad) = (0, 0);
    // HTTP strips whitespace around a header's value.
    let is_sendable = |case: &&Case| case.resource == table.edge && case.token.trim() == case.token;
    for case in table.cases.iter().filter(is_sendable).step_by(11) {
        let Ok(header) = HeaderValue::from_str(&format!("Bearer {}", case.token)) else { continue };
        let request = client.post().header("authorization", header).body(body.clone());
        let reply = client.send(request).await;
        if case.good {
            good += 1;
            assert_eq!(reply.status, StatusCode::OK, "{}: {reply:?}", case.name);
        } else {
            bad += 1;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{}: {reply:?}", case.name);
        }
    }
    (good, bad)
}
