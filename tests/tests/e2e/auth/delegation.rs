//! A tool service that was called for somebody calls another one in their name.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use drawbridge_auth::decision_log::{DecisionLogConfig, DecisionRecord};
use drawbridge_cli::mesh::Hosted;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, operation::Kind,
    token_set::Which,
};
use drawbridge_sdk::identity::TransactionClaims;
use drawbridge_tests::{
    Edge, TestIssuer, TestMesh, conformance::Conformance, connect, now, serve_conformance,
};
use jsonwebtoken::{Algorithm, decode_header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tonic::Code;
use url::Url;

use super::revocation::{platform, revoke_of};
use crate::identity::{call_with, context, contract, exchange, exchange_at};

const LIST: &str = "drawbridge.code.v1.CodeService/ListFiles";
const WHO_AM_I: &str = "drawbridge.conformance.v1.ConformanceService/WhoAmI";
const INSIDE: &str = "drawbridge-auth";
/// The service `test` runs as any of the deputies.
const POLICY: &str = r#"
@id("test-acts-for-its-callers")
permit (
  principal in Group::"deputies",
  action == Action::"act",
  resource == Service::"test"
);
"#;

/// A mesh with the services `code` and `test`, where this issuer's tokens are good.
struct Delegating {
    issuer: TestIssuer,
    mesh: TestMesh,
    conformance: Conformance,
    edge: Edge,
    _service: Hosted,
}

impl Delegating {
    async fn start(decisions: Option<&Path>) -> Self {
        let issuer = TestIssuer::start().await;
        let table = format!(
            "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\ntenants = [\"acme\", \"umbrella\"]\n",
            issuer.name()
        );
        let mesh = TestMesh::with(|config| {
            serve_conformance(config);
            let file = config.policies.join("issuers.toml");
            fs::write(&file, table).expect("a file");
            config.issuers = Some(file);
            fs::write(config.policies.join("deputies.cedar"), POLICY).expect("a file");
            config.decision_log = DecisionLogConfig {
                decision_log: decisions.map(Path::to_owned),
                decision_log_days: 2,
                decision_log_arguments: false,
            };
        })
        .await;
        let (conformance, service, edge) = mesh.conformance(|_| {}).await;
        Self { issuer, mesh, conformance, edge, _service: service }
    }

    fn token(&self, audience: &str, over: Value) -> String {
        let mut claims = self.issuer.claims(audience);
        claims.as_object_mut().expect("claims").extend(over.as_object().expect("claims").clone());
        self.issuer.sign(&self.issuer.header(), &claims)
    }

    /// The access token of a person, who is erin the engineer where nothing else is said.
    fn person(&self, over: Value) -> String {
        self.token(self.mesh.mesh.mcp_url.as_str(), over)
    }

    /// The token of a program.
    fn program(&self, name: &str, groups: &[&str]) -> String {
        self.token(INSIDE, json!({ "sub": name, "client_id": name, "groups": groups }))
    }

    fn deputy(&self) -> String {
        self.program("deputy", &["deputies"])
    }

    /// The transaction token of a person's call, as the edge gets it.
    async fn called(&self, access_token: &str) -> String {
        self.called_at(&self.mesh.mesh.state.auth_url, access_token, "test_who_am_i", WHO_AM_I)
            .await
    }

    async fn called_at(&self, auth_url: &Url, access_token: &str, name: &str, rpc: &str) -> String {
        let service = name.split_once('_').expect("a namespace").0;
        let item = pb::CatalogItem {
            name: name.into(),
            service: service.into(),
            rpc: rpc.into(),
            scopes: vec![],
        };
        let arguments = match service {
            "code" => json!({ "glob": "*.toml", "path": "" }),
            _ => json!({ "secret": "" }),
        };
        let operation = pb::Operation {
            kind: Kind::CallTool.into(),
            item: Some(item),
            arguments_json: Some(arguments.to_string().into_bytes().into()),
            recorded_arguments_json: None,
            message_sha256: Some(vec![0; 32]),
        };
        let request = pb::AuthorizeRequest {
            access_token: access_token.to_owned(),
            operation: Some(operation),
            resource: self.mesh.mesh.mcp_url.to_string(),
            ..Default::default()
        };
        let mut auth = AuthServiceClient::new(connect(auth_url).expect("a channel"));
        let answer = auth.authorize(context().outgoing(request)).await.expect("an answer");
        match answer.into_inner().outcome.expect("an outcome") {
            authorize_response::Outcome::Allowed(allowed) => {
                allowed.transaction_token.expect("a token").token
            }
            other => panic!("{other:?}"),
        }
    }

    async fn delegate(
        &self,
        subject_token: &str,
        actor_token: &str,
        rpc: &str,
    ) -> Result<String, String> {
        let auth_url = &self.mesh.mesh.state.auth_url;
        exchange_at(auth_url, request(subject_token, actor_token, rpc)).await
    }

    /// Why no token is given.
    async fn refusal(&self, subject_token: &str, actor_token: &str, rpc: &str) -> String {
        self.delegate(subject_token, actor_token, rpc).await.expect_err("no token")
    }

    async fn list_files(&self, token: &str) -> Code {
        let code = &self.mesh.mesh.state.services["code"];
        let contract = contract(code).await;
        let service =
            contract.pool.get_service_by_name("drawbridge.code.v1.CodeService").expect("a service");
        let method =
            service.methods().find(|method| method.name() == "ListFiles").expect("a method");
        call_with(code, &method, Some(token)).await
    }
}

fn request(subject_token: &str, actor_token: &str, rpc: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        subject_token: subject_token.to_owned(),
        rpc: rpc.to_owned(),
        actor_token: actor_token.to_owned(),
    }
}

fn claims(token: &str) -> TransactionClaims {
    jsonwebtoken::dangerous::insecure_decode::<TransactionClaims>(token).expect("a token").claims
}

#[tokio::test]
async fn a_tool_service_calls_another_in_the_name_of_the_person_who_called_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let it = Delegating::start(Some(folder.path())).await;
    // The person calls through the edge, and the service has the token that it was called with.
    let erin = it.edge.client(&it.mesh.client_with(&it.person(json!({ "jti": "erins-token" }))));
    let said = erin.call_tool("test_who_am_i", json!({ "secret": "" })).await;
    assert_eq!(said.json["result"]["content"][0]["text"], "erin of ", "{said:?}");
    let first = it.conformance.called_with().expect("a token");
    let first = first.expose_secret();
    assert_ne!(
        it.list_files(first).await,
        Code::Ok,
        "the token is for the service that was called"
    );

    // What the service may in its own name does not matter.
    assert!(exchange(&it.mesh, &it.deputy(), LIST).await.expect_err("no token").contains("Denied"));
    let second = it.delegate(first, &it.deputy(), LIST).await.expect("a token");
    assert_eq!(it.list_files(&second).await, Code::Ok);
    let (before, after) = (claims(first), claims(&second));
    assert_eq!((after.sub.as_str(), after.aud.as_str()), ("erin", "code"));
    assert_eq!(
        (&after.tctx.iss, &after.tctx.facts, &after.txn),
        (&before.tctx.iss, &before.tctx.facts, &before.txn)
    );
    assert!(after.exp <= before.exp, "{after:?}");
    let actor = after.act.expect("an actor");
    assert_eq!(
        (actor.iss.as_str(), actor.sub.as_str(), actor.act),
        (it.issuer.name(), "deputy", None)
    );
    assert_eq!(before.act, None);

    // Handlers, the log and the record of decisions know both.
    let log = it.mesh.log();
    let called = log.lines().find(|line| line.contains("\"called\"") && line.contains("ListFiles"));
    let called = called.expect("a line");
    assert!(called.contains("\"erin\"") && called.contains("\"deputy\""), "{called}");
    for token in [first, &second, &it.deputy()] {
        assert!(!log.contains(token), "a token in the log");
    }
    it.mesh.stop().await;
    let file =
        fs::read_dir(folder.path()).expect("a folder").next().expect("a file").expect("a file");
    let lines = fs::read_to_string(file.path()).expect("a log");
    let records = lines.lines().map(|line| serde_json::from_str(line).expect("a record"));
    let records: Vec<DecisionRecord> = records.collect();
    let actors = |subject: &str, item: &str| -> Vec<_> {
        let of = records.iter().filter(|record| record.subject == subject && record.item == item);
        of.map(|record| record.actor.as_ref().map(|actor| actor.sub.as_str())).collect()
    };
    assert_eq!(actors("erin", "code_list_files"), [Some("deputy")]);
    assert_eq!(actors("deputy", "code_list_files"), [None]);
    assert!(actors("erin", "test_who_am_i").iter().all(Option::is_none));
}

#[tokio::test]
async fn only_a_workload_that_policy_names_acts_and_only_as_the_service_that_it_names() {
    let it = Delegating::start(None).await;
    let called = it.called(&it.person(json!({}))).await;
    assert!(it.delegate(&called, &it.deputy(), LIST).await.is_ok());

    let stranger = it.program("stranger", &["engineering"]);
    assert!(it.refusal(&called, &stranger, LIST).await.contains("no policy permits it"));
    let person = it.token(INSIDE, json!({ "groups": ["deputies"] }));
    assert!(it.refusal(&called, &person, LIST).await.contains("no policy permits it"));
    let auth_url = it.mesh.mesh.state.auth_url.clone();
    let of_code = it.called_at(&auth_url, &it.person(json!({})), "code_list_files", LIST).await;
    let refused = it.refusal(&of_code, &it.deputy(), WHO_AM_I).await;
    assert!(
        refused.contains("no policy permits it") && refused.contains("subject: \"deputy\""),
        "{refused}"
    );

    // The actor is somebody by its own token alone.
    for (actor, why) in [
        ("nonsense".to_owned(), "the actor: the access token is malformed"),
        (called.clone(), "the actor: the access token"),
        (
            it.token("https://elsewhere.example", json!({ "sub": "deputy" })),
            "the actor: the access token is for another audience",
        ),
        (it.token(INSIDE, json!({ "exp": now() - 60 })), "the actor: the access token has expired"),
    ] {
        let refused = it.refusal(&called, &actor, LIST).await;
        assert!(refused.contains("Unauthenticated") && refused.contains(why), "{refused}");
    }

    // The policy is looked at each time.
    it.mesh.edit_policy("deputies.cedar", "Service::\"test\"", "Service::\"code\"");
    let edited = Instant::now();
    while it.delegate(&called, &it.deputy(), LIST).await.is_ok() {
        assert!(edited.elapsed() < Duration::from_secs(2), "the edit does not hold");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_subject_is_known_by_a_transaction_token_of_this_auth_alone() {
    let it = Delegating::start(None).await;
    let called = it.called(&it.person(json!({}))).await;
    let strangers = TestIssuer::with_every_algorithm().await;
    let forged = |over: &dyn Fn(&mut Value, &mut jsonwebtoken::Header)| {
        let mut header = strangers.header_of(Algorithm::EdDSA);
        header.typ = Some("txntoken+jwt".to_owned());
        header.kid = decode_header(&called).expect("a header").kid;
        let mut claims = serde_json::to_value(claims(&called)).expect("claims");
        over(&mut claims, &mut header);
        strangers.sign(&header, &claims)
    };
    let (message, signature) = called.rsplit_once('.').expect("a signature");
    let (header, _) = message.split_once('.').expect("claims");
    let other = it.called(&it.person(json!({ "sub": "mallory" }))).await;
    let payload = other.split('.').nth(1).expect("claims");
    for (what, token) in [
        ("an outside access token", it.person(json!({}))),
        ("an inside access token", it.token(INSIDE, json!({}))),
        ("a program's own token", it.deputy()),
        ("signed by a stranger", forged(&|_, _| {})),
        (
            "signed by a stranger whose key is not known",
            forged(&|_, header| header.kid = Some("ed-key".into())),
        ),
        ("without a key id", forged(&|_, header| header.kid = None)),
        ("of another type", forged(&|_, header| header.typ = Some("at+jwt".into()))),
        ("of another algorithm", forged(&|_, header| header.alg = Algorithm::ES256)),
        ("without a signature", format!("{message}.")),
        ("somebody else's, under this signature", format!("{header}.{payload}.{signature}")),
        ("nonsense", "nonsense".to_owned()),
        ("nothing", String::new()),
        ("too long", "x".repeat(20_000)),
    ] {
        let refused = it.refusal(&token, &it.deputy(), LIST).await;
        assert!(refused.contains("Unauthenticated"), "{what}: {refused}");
        assert!(refused.contains("no transaction token of this auth service"), "{what}: {refused}");
    }
    // By itself it is exchanged for nothing.
    assert!(it.refusal(&called, "", LIST).await.contains("Unauthenticated"));

    let auth = it.mesh.auth(|config| {
        config.issuer = Some(it.issuer.name().to_owned());
        config.transaction_ttl_seconds = 1;
    });
    let replica = auth.start().await;
    let brief = it.called_at(&auth.url, &it.person(json!({})), "test_who_am_i", WHO_AM_I).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let late = exchange_at(&auth.url, request(&brief, &it.deputy(), LIST)).await;
    assert!(late.expect_err("no token").contains("the subject token has expired"));
    replica.stop().await;
}

#[tokio::test]
async fn four_may_stand_between_a_person_and_an_rpc_and_none_of_them_prolongs_it() {
    let it = Delegating::start(None).await;
    let mut token = it.called(&it.person(json!({}))).await;
    let ends = claims(&token).exp;
    for number in 1..=4 {
        // So that a token of full length would end later.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let deputy = it.program(&format!("deputy-{number}"), &["deputies"]);
        token = it.delegate(&token, &deputy, WHO_AM_I).await.expect("a token");
        assert_eq!(claims(&token).exp, ends);
    }
    let mut actors = Vec::new();
    let mut act = claims(&token).act;
    while let Some(actor) = act {
        actors.push(actor.sub);
        act = actor.act;
    }
    assert_eq!(actors, ["deputy-4", "deputy-3", "deputy-2", "deputy-1"]);
    let refused = it.refusal(&token, &it.deputy(), LIST).await;
    assert!(
        refused.contains("Denied") && refused.contains("4 services have called one another"),
        "{refused}"
    );
}

#[tokio::test]
async fn policy_decides_on_the_person_as_if_they_had_called_themselves() {
    let it = Delegating::start(None).await;
    // A deputy that may itself.
    let deputy = it.program("deputy", &["deputies", "platform"]);
    assert!(exchange(&it.mesh, &deputy, LIST).await.is_ok());
    for (person, why) in [
        (json!({ "sub": "simon", "groups": ["support"] }), "no policy permits it"),
        (json!({ "sub": "simon", "groups": [] }), "no policy permits it"),
        // That a policy forbids it to umbrella is for the record.
        (json!({ "sub": "simon", "tenant": "umbrella" }), "no policy permits it"),
    ] {
        let called = it.called(&it.person(person.clone())).await;
        let refused = it.refusal(&called, &deputy, LIST).await;
        assert!(
            refused.contains(why) && refused.contains("subject: \"simon\""),
            "{person}: {refused}"
        );
    }
    let called = it.called(&it.person(json!({ "tenant": "acme" }))).await;
    assert!(it.delegate(&called, &deputy, LIST).await.is_ok());
    // As with every exchange, nobody knows the arguments.
    let read = it.refusal(&called, &deputy, "drawbridge.code.v1.CodeService/ReadFile").await;
    assert!(read.contains("Denied"), "{read}");
    assert!(
        it.refusal(&called, &deputy, "no.such.Service/Method")
            .await
            .contains("no policy permits it")
    );

    // More groups than go into a header: for such a person nobody acts, because a policy may forbid by any of them.
    let groups: Vec<_> = (0..200).map(|number| format!("engineering-{number:020}")).collect();
    let called = it.called(&it.person(json!({ "groups": groups }))).await;
    assert!(it.refusal(&called, &deputy, LIST).await.contains("says too little of its subject"));
}

#[tokio::test]
async fn nobody_acts_for_a_person_whose_access_is_revoked() {
    let it = Delegating::start(None).await;
    let platform = platform(&it.mesh).await;
    for (number, which) in [
        Which::Subject("eve".into()),
        Which::ClientId("client-1".into()),
        Which::TokenId("token-2".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let subject = if number == 0 { "eve" } else { "erin" };
        let person = json!({
            "sub": subject, "client_id": format!("client-{number}"), "jti": format!("token-{number}"),
        });
        let called = it.called(&it.person(person)).await;
        let delegated = it.delegate(&called, &it.deputy(), WHO_AM_I).await.expect("a token");
        revoke_of(&it.mesh, &platform, it.issuer.name(), which.clone()).await;
        for token in [&called, &delegated] {
            let refused = it.refusal(token, &it.deputy(), LIST).await;
            assert!(
                refused.contains("the subject's access token is revoked"),
                "{which:?}: {refused}"
            );
        }
    }
    let called = it.called(&it.person(json!({ "client_id": "client-9", "jti": "token-9" }))).await;
    assert!(it.delegate(&called, &it.deputy(), LIST).await.is_ok(), "others go on");
    // The deputy's own access too.
    revoke_of(&it.mesh, &platform, it.issuer.name(), Which::Subject("deputy".into())).await;
    let refused = it.refusal(&called, &it.deputy(), LIST).await;
    assert!(refused.contains("the actor: the access token is revoked"), "{refused}");
}
