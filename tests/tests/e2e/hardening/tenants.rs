//! The tenants that an issuer may claim.

use std::fs;

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, operation::Kind,
};
use drawbridge_tests::{Client, TestIssuer, TestMesh, connect};
use drawbridge_transport::transaction_token::{Principal, TransactionClaims};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    identity::context,
    invoices::saved::{found, save},
};

/// A policy for the partner's users, who have their own groups.
const POLICY: &str = r#"
@id("partner-reads")
permit (
  principal in Group::"partner:staff",
  action in [Action::"read_tool", Action::"read_resource"],
  resource
)
when { resource in Service::"tickets" || resource in Service::"invoices" };
"#;

/// A mesh that also trusts a partner's issuer, with this entry.
struct PartnerMesh {
    mesh: TestMesh,
    partner: TestIssuer,
}

impl PartnerMesh {
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

    /// The token of a partner's user who claims a tenant.
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

/// The attack: with `group_prefix` alone, as documented, the partner's token claimed `acme` and
/// read acme's shared invoice and 22 tickets.
#[tokio::test]
async fn a_partners_token_that_claims_a_tenant_is_rejected_unless_the_partner_is_bound_to_it() {
    let it = PartnerMesh::start(r#"claims.group_prefix = "partner:""#).await;
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
    // Without a tenant the partner's users are accepted, and acme's users are not affected.
    assert_eq!(it.client("").call("tools/list", json!({})).await.status, StatusCode::OK);
    assert_eq!(tickets(&it.mesh.client("bob").await).await.len(), 22);
    let log = it.mesh.log();
    let warned =
        |line: &&str| line.contains("this one has no configured tenants") && line.contains("WARN");
    assert!(
        log.lines().any(|line| warned(&line) && line.contains(it.partner.name())),
        "no warning"
    );
}

#[tokio::test]
async fn a_partner_with_prefixed_tenants_reads_nothing_of_a_tenant_with_the_unprefixed_name() {
    let it = PartnerMesh::start(
        "claims.group_prefix = \"partner:\"\nclaims.tenant_prefix = \"partner.\"",
    )
    .await;
    let carol = it.mesh.client("carol").await;
    save(&carol, "T-1", true).await;
    assert_eq!(found(&carol, json!({})).await, ["T-1"]);
    assert!(!tickets(&it.mesh.client("bob").await).await.is_empty());

    let partner_user = it.client("acme");
    assert_eq!(found(&partner_user, json!({})).await, [""; 0]);
    assert_eq!(tickets(&partner_user).await, [Value::Null; 0]);

    // Databases, Vault, the cache and tool services read the tenant from the transaction token.
    let claims = transaction(&it, &it.token("acme")).await;
    assert_eq!(claims.tctx.tenant.as_deref(), Some("partner.acme"));
    let principal = Principal::new(it.partner.name(), "erin", Some("partner.acme"));
    assert_eq!(claims.tctx.principal, principal);
    assert!(!it.mesh.log().contains("two issuers may name the same tenant"));
}

/// The operator may list a tenant for two issuers, and gets a warning.
#[tokio::test]
async fn two_issuers_with_a_common_tenant_cause_a_warning() {
    let it = PartnerMesh::start("claims.group_prefix = \"partner:\"\ntenants = [\"acme\"]").await;
    assert!(!tickets(&it.client("acme")).await.is_empty());
    assert_eq!(
        it.client("umbrella").call("tools/list", json!({})).await.status,
        StatusCode::UNAUTHORIZED
    );
    let log = it.mesh.log();
    let warned = log.lines().find(|line| line.contains("two issuers may name the same tenant"));
    let warned = warned.expect("a warning");
    let both = [it.partner.name(), it.mesh.mesh.state.issuer_name()];
    assert!(both.iter().all(|issuer| warned.contains(issuer)), "{warned}");
}

/// Anyone with permission to create namespaces in a cluster chooses their names.
#[tokio::test]
async fn a_cluster_that_maps_namespaces_to_tenants_gets_prefixed_tenants() {
    let entry = "preset = \"kubernetes\"\nclaims = { tenant = \"tenant\", groups = \"groups\", group_prefix = \"partner:\" }";
    let it = PartnerMesh::start(entry).await;
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

fn auth(it: &PartnerMesh) -> AuthServiceClient<tonic::transport::Channel> {
    AuthServiceClient::new(connect(&it.mesh.mesh.state.auth_url).expect("a channel"))
}

fn authorize(
    it: &PartnerMesh,
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

/// The claims that a tool service receives about the owner of this token.
async fn transaction(it: &PartnerMesh, token: &str) -> TransactionClaims {
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
