//! Which issuer may name which tenant.

use std::fs;

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, operation::Kind,
};
use drawbridge_sdk::identity::{Principal, TransactionClaims};
use drawbridge_tests::{Client, TestIssuer, TestMesh, connect};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    identity::context,
    invoices::kept::{found, save},
};

/// What somebody has allowed the partner's people, who have groups of their own.
const POLICY: &str = r#"
@id("partner-reads")
permit (
  principal in Group::"partner:staff",
  action in [Action::"read_tool", Action::"read_resource"],
  resource
)
when { resource in Service::"tickets" || resource in Service::"invoices" };
"#;

/// A mesh that accepts a partner's issuer too, by this entry.
struct Partnered {
    mesh: TestMesh,
    partner: TestIssuer,
}

impl Partnered {
    async fn start(entry: &str) -> Self {
        let partner = TestIssuer::start().await;
        let table = format!(
            "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\n{entry}\n",
            partner.name()
        );
        let mesh = TestMesh::with(|config| {
            let file = config.policies.join("issuers.toml");
            fs::write(&file, table).expect("a file");
            config.issuers = Some(file);
            fs::write(config.policies.join("partner.cedar"), POLICY).expect("a file");
        })
        .await;
        Self { mesh, partner }
    }

    /// The token of one of the partner's people, who claims to be of a tenant.
    fn token(&self, tenant: &str) -> String {
        let mut claims = self.partner.claims(self.mesh.mesh.mcp_url.as_str());
        claims["groups"] = json!(["staff"]);
        claims["tenant"] = json!(tenant);
        self.partner.sign(&self.partner.header(), &claims)
    }

    fn client(&self, tenant: &str) -> Client {
        self.mesh.client_with(&self.token(tenant))
    }
}

async fn tickets(client: &Client) -> Vec<Value> {
    let reply = client.call_tool("tickets_search", json!({})).await;
    reply.json["result"]["structuredContent"]["tickets"].as_array().cloned().unwrap_or_default()
}

/// The attack: with nothing but `group_prefix`, as the documentation taught, the partner's token claimed `acme` and read
/// the invoice that acme shares and 22 tickets.
#[tokio::test]
async fn a_partners_token_that_claims_a_tenant_is_refused_where_the_partner_is_bound_to_none() {
    let it = Partnered::start(r#"claims.group_prefix = "partner:""#).await;
    for tenant in ["acme", "umbrella", "partner"] {
        for reply in [
            it.client(tenant).call_tool("tickets_search", json!({})).await,
            it.client(tenant).call("tools/list", json!({})).await,
        ] {
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{tenant}: {reply:?}");
            assert!(
                reply.message().contains("claims a tenant that its issuer may not name"),
                "{tenant}: {reply:?}"
            );
            let challenge = reply.headers["www-authenticate"].to_str().expect("text");
            assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
        }
    }
    // Of no tenant the partner's people are let in, and acme's as ever.
    assert_eq!(it.client("").call("tools/list", json!({})).await.status, StatusCode::OK);
    assert_eq!(tickets(&it.mesh.client("bob").await).await.len(), 22);
    let log = it.mesh.log();
    let warned =
        |line: &&str| line.contains("this one is bound to no tenant") && line.contains("WARN");
    assert!(
        log.lines().any(|line| warned(&line) && line.contains(it.partner.name())),
        "no warning"
    );
}

#[tokio::test]
async fn a_partner_whose_tenants_are_prefixed_reads_nothing_of_a_tenant_of_that_name() {
    let it =
        Partnered::start("claims.group_prefix = \"partner:\"\nclaims.tenant_prefix = \"partner.\"")
            .await;
    let carol = it.mesh.client("carol").await;
    save(&carol, "T-1", true).await;
    assert_eq!(found(&carol, json!({})).await, ["T-1"]);
    assert!(!tickets(&it.mesh.client("bob").await).await.is_empty());

    let stranger = it.client("acme");
    assert_eq!(found(&stranger, json!({})).await, [""; 0]);
    assert_eq!(tickets(&stranger).await, [Value::Null; 0]);

    // Databases, Vault, the cache and tool services have the tenant from the transaction token.
    let claims = transaction(&it, &it.token("acme")).await;
    assert_eq!(claims.tctx.tenant.as_deref(), Some("partner.acme"));
    let principal = Principal::new(it.partner.name(), "erin", Some("partner.acme"));
    assert_eq!(claims.tctx.principal, principal);
    assert!(!it.mesh.log().contains("two issuers may name one tenant"));
}

/// Two that list one tenant are what the operator asked for, who is told.
#[tokio::test]
async fn two_issuers_that_may_name_one_tenant_are_warned_of() {
    let it = Partnered::start("claims.group_prefix = \"partner:\"\ntenants = [\"acme\"]").await;
    assert!(!tickets(&it.client("acme")).await.is_empty());
    assert_eq!(
        it.client("umbrella").call("tools/list", json!({})).await.status,
        StatusCode::UNAUTHORIZED
    );
    let log = it.mesh.log();
    let warned = log.lines().find(|line| line.contains("two issuers may name one tenant"));
    let warned = warned.expect("a warning");
    let both = [it.partner.name(), it.mesh.mesh.state.issuer_name()];
    assert!(both.iter().all(|issuer| warned.contains(issuer)), "{warned}");
}

/// A cluster's namespaces are named by whoever may create one.
#[tokio::test]
async fn a_cluster_that_maps_namespaces_to_tenants_gets_tenants_of_its_own() {
    let entry = "preset = \"kubernetes\"\nclaims = { tenant = \"tenant\", groups = \"groups\", group_prefix = \"partner:\" }";
    let it = Partnered::start(entry).await;
    let request = authorize(&it, &it.token("acme"), Kind::Connect, None);
    let outcome = auth(&it)
        .authorize(context().outgoing(request))
        .await
        .expect("an answer")
        .into_inner()
        .outcome;
    let Some(authorize_response::Outcome::Allowed(allowed)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(allowed.principal.expect("a principal").tenant, "kubernetes.acme");
}

fn auth(it: &Partnered) -> AuthServiceClient<tonic::transport::Channel> {
    AuthServiceClient::new(connect(&it.mesh.mesh.state.auth_url).expect("a channel"))
}

fn authorize(
    it: &Partnered,
    token: &str,
    kind: Kind,
    item: Option<pb::CatalogItem>,
) -> pb::AuthorizeRequest {
    let arguments = item.as_ref().map(|_| {
        br#"{"query":"","state":"","priority":"","assignee":"","customer":"","page_token":""}"#
            .to_vec()
            .into()
    });
    let operation =
        pb::Operation { kind: kind.into(), item, arguments_json: arguments, ..Default::default() };
    pb::AuthorizeRequest {
        access_token: token.to_owned(),
        operation: Some(operation),
        resource: it.mesh.mesh.mcp_url.to_string(),
        ..Default::default()
    }
}

/// What a tool service is told of whoever holds this token.
async fn transaction(it: &Partnered, token: &str) -> TransactionClaims {
    let item = pb::CatalogItem {
        name: "tickets_search".to_owned(),
        service: "tickets".to_owned(),
        rpc: "drawbridge.tickets.v1.TicketService/Search".to_owned(),
        scopes: vec![],
    };
    let request = authorize(it, token, Kind::CallTool, Some(item));
    let outcome = auth(it)
        .authorize(context().outgoing(request))
        .await
        .expect("an answer")
        .into_inner()
        .outcome;
    let Some(authorize_response::Outcome::Allowed(allowed)) = outcome else {
        panic!("{outcome:?}")
    };
    let token = allowed.transaction_token.expect("a token").token;
    jsonwebtoken::dangerous::insecure_decode::<TransactionClaims>(&token).expect("claims").claims
}
