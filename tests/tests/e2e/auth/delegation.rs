//! A tool service calls another on behalf of its caller.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use drawbridge_audit::Event;
use drawbridge_mesh::HostedService;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, operation::Kind,
    token_set::Which,
};
use drawbridge_tests::{
    Edge, TestIssuer, TestMesh, audit_decisions, audit_events, conformance::Conformance, connect,
    now, serve_conformance,
};
use drawbridge_transport::transaction_token::TransactionClaims;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tonic::Code;
use url::Url;

use super::revocation::{platform, revoke_of};
use crate::identity::{call_with, context, contract, exchange, exchange_at};

mod subject_tokens;

const LIST: &str = "drawbridge.code.v1.CodeService/ListFiles";
const WHO_AM_I: &str = "drawbridge.conformance.v1.ConformanceService/WhoAmI";
const INSIDE: &str = "drawbridge-auth";
/// Any of the deputies may act as the service `test`.
const POLICY: &str = r#"
@id("test-acts-for-its-callers")
permit (
  principal in Group::"deputies",
  action == Action::"act",
  resource == Service::"test"
);
"#;

/// A mesh with the services `code` and `test` that trusts this issuer.
struct Delegating {
    issuer: TestIssuer,
    mesh: TestMesh,
    conformance: Conformance,
    edge: Edge,
    _service: HostedService,
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
            config.audit.audit_log = decisions.map(Path::to_owned);
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

    /// The access token of a user: erin the engineer, with the claims of `over`.
    fn user(&self, over: Value) -> String {
        self.token(self.mesh.mesh.mcp_url.as_str(), over)
    }

    /// The token of a workload.
    fn workload(&self, name: &str, groups: &[&str]) -> String {
        self.token(INSIDE, json!({ "sub": name, "client_id": name, "groups": groups }))
    }

    fn deputy(&self) -> String {
        self.workload("deputy", &["deputies"])
    }

    /// The transaction token of a user's call, as auth issues it to the edge.
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

    /// The error of a rejected delegation.
    async fn rejection(&self, subject_token: &str, actor_token: &str, rpc: &str) -> String {
        self.delegate(subject_token, actor_token, rpc).await.expect_err("a rejection")
    }

    async fn list_files(&self, token: &str) -> Code {
        let code = &self.mesh.mesh.state.services["code"];
        let contract = contract(code).await;
        let service =
            contract.pool.get_service_by_name("drawbridge.code.v1.CodeService").expect("a service");
        let method =
            service.methods().find(|method| method.name() == "ListFiles").expect("a method");
        call_with(code, &method, &[token]).await
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
async fn a_tool_service_calls_another_on_behalf_of_its_caller() {
    let folder = tempfile::tempdir().expect("a folder");
    let it = Delegating::start(Some(folder.path())).await;
    // The user calls through the edge; the service receives the transaction token of the call.
    let erin = it.edge.client(&it.mesh.client_with(&it.user(json!({ "jti": "erins-token" }))));
    let reply = erin.call_tool("test_who_am_i", json!({ "secret": "" })).await;
    assert_eq!(reply.json["result"]["content"][0]["text"], "erin of ", "{reply:?}");
    let first = it.conformance.called_with().expect("a token");
    let first = first.expose_secret();
    assert_ne!(
        it.list_files(first).await,
        Code::Ok,
        "the token is valid for the called service only"
    );

    // The service's own permissions do not matter.
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

    // The audit log names the subject and the actor, the log the actor and a pseudonym.
    let log = it.mesh.log();
    let called = log.lines().find(|line| line.contains("\"called\"") && line.contains("ListFiles"));
    let called = called.expect("a log record");
    assert!(called.contains("\"enduser.pseudo.id\":\""), "{called}");
    assert!(called.contains("\"deputy\"") && !called.contains("\"erin\""), "{called}");
    for token in [first, &second, &it.deputy()] {
        assert!(!log.contains(token), "a token in the log");
    }
    it.mesh.stop().await;
    let records = audit_decisions(folder.path());
    let actors = |subject: &str, item: &str| -> Vec<_> {
        let of =
            records.iter().filter(|record| record.who.subject == subject && record.item == item);
        of.map(|record| record.who.actor.as_ref().and_then(|actor| actor["sub"].as_str())).collect()
    };
    assert_eq!(actors("erin", "code_list_files"), [Some("deputy")]);
    assert_eq!(actors("deputy", "code_list_files"), [None]);
    assert!(actors("erin", "test_who_am_i").iter().all(Option::is_none));
    let delegated = audit_events(folder.path()).into_iter().any(|event| match event {
        Event::Delegation(it) => {
            (it.who.subject.as_str(), it.for_subject.as_str(), it.outcome.as_str())
                == ("deputy", "erin", "allow")
        }
        _ => false,
    });
    assert!(delegated, "no record of the delegation");
}

#[tokio::test]
async fn only_a_workload_that_policy_permits_acts_and_only_as_the_named_service() {
    let it = Delegating::start(None).await;
    let called = it.called(&it.user(json!({}))).await;
    assert!(it.delegate(&called, &it.deputy(), LIST).await.is_ok());

    let unnamed = it.workload("indexer", &["engineering"]);
    assert!(it.rejection(&called, &unnamed, LIST).await.contains("no policy permits it"));
    let user = it.token(INSIDE, json!({ "groups": ["deputies"] }));
    assert!(it.rejection(&called, &user, LIST).await.contains("no policy permits it"));
    let auth_url = it.mesh.mesh.state.auth_url.clone();
    let of_code = it.called_at(&auth_url, &it.user(json!({})), "code_list_files", LIST).await;
    let refused = it.rejection(&of_code, &it.deputy(), WHO_AM_I).await;
    assert!(
        refused.contains("no policy permits it") && refused.contains("subject: \"deputy\""),
        "{refused}"
    );

    // Only its own token authenticates the actor.
    for (actor, why) in [
        ("nonsense".to_owned(), "the actor: the access token is malformed"),
        (called.clone(), "the actor: the access token"),
        (
            it.token("https://elsewhere.example", json!({ "sub": "deputy" })),
            "the actor: the access token is for another audience",
        ),
        (it.token(INSIDE, json!({ "exp": now() - 60 })), "the actor: the access token has expired"),
    ] {
        let refused = it.rejection(&called, &actor, LIST).await;
        assert!(refused.contains("Unauthenticated") && refused.contains(why), "{refused}");
    }

    // Each exchange evaluates the current policy.
    it.mesh.edit_policy("deputies.cedar", "Service::\"test\"", "Service::\"code\"");
    let edited = Instant::now();
    while it.delegate(&called, &it.deputy(), LIST).await.is_ok() {
        assert!(edited.elapsed() < Duration::from_secs(2), "the edit does not take effect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn policy_decides_on_the_subject_as_in_a_direct_call() {
    let it = Delegating::start(None).await;
    // A deputy with its own permission.
    let deputy = it.workload("deputy", &["deputies", "platform"]);
    assert!(exchange(&it.mesh, &deputy, LIST).await.is_ok());
    for (user, why) in [
        (json!({ "sub": "simon", "groups": ["support"] }), "no policy permits it"),
        (json!({ "sub": "simon", "groups": [] }), "no policy permits it"),
        // The policy that forbids umbrella appears in the decision log only.
        (json!({ "sub": "simon", "tenant": "umbrella" }), "no policy permits it"),
    ] {
        let called = it.called(&it.user(user.clone())).await;
        let refused = it.rejection(&called, &deputy, LIST).await;
        assert!(
            refused.contains(why) && refused.contains("subject: \"simon\""),
            "{user}: {refused}"
        );
    }
    let called = it.called(&it.user(json!({ "tenant": "acme" }))).await;
    assert!(it.delegate(&called, &deputy, LIST).await.is_ok());
    // An exchange has no arguments to decide on.
    let read = it.rejection(&called, &deputy, "drawbridge.code.v1.CodeService/ReadFile").await;
    assert!(read.contains("Denied"), "{read}");
    assert!(
        it.rejection(&called, &deputy, "no.such.Service/Method")
            .await
            .contains("no policy permits it")
    );

    // The groups exceed the token's limit. Any of them could be forbidden, so delegation is
    // rejected.
    let groups: Vec<_> = (0..200).map(|number| format!("engineering-{number:020}")).collect();
    let called = it.called(&it.user(json!({ "groups": groups }))).await;
    assert!(it.rejection(&called, &deputy, LIST).await.contains("omits groups and roles"));
}

#[tokio::test]
async fn delegation_for_a_revoked_subject_is_rejected() {
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
        let user = json!({
            "sub": subject, "client_id": format!("client-{number}"), "jti": format!("token-{number}"),
        });
        let called = it.called(&it.user(user)).await;
        let delegated = it.delegate(&called, &it.deputy(), WHO_AM_I).await.expect("a token");
        revoke_of(&it.mesh, &platform, it.issuer.name(), which.clone()).await;
        for token in [&called, &delegated] {
            let refused = it.rejection(token, &it.deputy(), LIST).await;
            assert!(
                refused.contains("the subject's access token is revoked"),
                "{which:?}: {refused}"
            );
        }
    }
    let called = it.called(&it.user(json!({ "client_id": "client-9", "jti": "token-9" }))).await;
    assert!(it.delegate(&called, &it.deputy(), LIST).await.is_ok(), "others are not affected");
    // A revoked actor is rejected too.
    revoke_of(&it.mesh, &platform, it.issuer.name(), Which::Subject("deputy".into())).await;
    let refused = it.rejection(&called, &it.deputy(), LIST).await;
    assert!(refused.contains("the actor: the access token is revoked"), "{refused}");
}
