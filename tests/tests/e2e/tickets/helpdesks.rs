//! Two tenants with a helpdesk each, whose tokens are stored in a real Vault.

use drawbridge_config::{ConfigText, setup};
use drawbridge_credentials::VaultConfig;
use drawbridge_mesh::vault::bootstrap::Bootstrap;
use drawbridge_tests::{Client, Reply, TestMesh, Vault};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{any, header, path},
};

use super::result;

/// A Vault that trusts the auth of this mesh, for the service `tickets`.
pub(crate) async fn vault(mesh: &TestMesh) -> Vault {
    let vault = Vault::start().await;
    // Like deploy/vault/setup.toml.
    let setup = format!(
        "jwks_url = \"{}\"\naudit_file = {:?}\n[[service]]\nname = \"tickets\"\n",
        mesh.transaction_keys(),
        vault.audit_file()
    );
    let setup = setup::read(&ConfigText::new("setup.toml", setup)).expect("a setup");
    let (config, token) =
        (VaultConfig::new(vault.url.clone()), SecretString::from(vault.root_token.clone()));
    let bootstrap = Bootstrap::new(&config, token).expect("a client");
    bootstrap.apply(&setup).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    vault
}

/// Stores a tenant's token in Vault.
pub(crate) async fn store_token(vault: &Vault, tenant: &str, helpdesk: &MockServer, token: &str) {
    let secret = json!({ "data": { "url": helpdesk.uri(), "token": token } });
    let (status, answer) = vault
        .request(Method::POST, &format!("secret/data/{tenant}/tickets/helpdesk"), secret)
        .await;
    assert!(status.is_success(), "{status} {answer}");
}

/// A helpdesk with one ticket that accepts only this token.
pub(crate) async fn serve(helpdesk: &MockServer, title: &str, token: &str) {
    helpdesk.reset().await;
    let refused = ResponseTemplate::new(401).set_body_json(json!({ "error": "Invalid token" }));
    Mock::given(any()).respond_with(refused).with_priority(9).mount(helpdesk).await;
    let found = ResponseTemplate::new(200).set_body_json(json!([{ "id": 7, "title": title }]));
    Mock::given(path("/api/v1/tickets/search"))
        .and(header("authorization", format!("Token token={token}")))
        .respond_with(found)
        .mount(helpdesk)
        .await;
}

/// The tokens that a helpdesk received.
async fn received_tokens(helpdesk: &MockServer) -> Vec<String> {
    let requests = helpdesk.received_requests().await.expect("requests");
    let token = |request: wiremock::Request| {
        let value = request.headers.get("authorization").expect("a token").to_str().expect("text");
        value.trim_start_matches("Token token=").to_owned()
    };
    requests.into_iter().map(token).collect()
}

async fn search(client: &Client) -> Reply {
    client.call_tool("tickets_search", json!({})).await
}

fn title(reply: &Reply) -> &str {
    result(reply)["tickets"][0]["title"].as_str().expect("a title")
}

#[tokio::test]
async fn each_tenants_token_comes_from_vault_and_is_sent_only_to_its_own_helpdesk() {
    let mesh = TestMesh::start().await;
    let vault = vault(&mesh).await;
    let (of_acme, of_umbrella) = (MockServer::start().await, MockServer::start().await);
    serve(&of_acme, "a ticket of acme", "token-of-acme").await;
    serve(&of_umbrella, "a ticket of umbrella", "token-of-umbrella").await;
    store_token(&vault, "acme", &of_acme, "token-of-acme").await;
    let (_service, edge) = mesh.tickets(VaultConfig::new(vault.url.clone())).await;
    let bob = edge.client(&mesh.client("bob").await);
    let frank = edge.client(&mesh.client("frank").await);

    let without = search(&frank).await;
    assert!(without.message().contains("a required secret is not set"), "{without:?}");
    store_token(&vault, "umbrella", &of_umbrella, "token-of-umbrella").await;
    for _ in 0..3 {
        assert_eq!(title(&search(&bob).await), "a ticket of acme");
        assert_eq!(title(&search(&frank).await), "a ticket of umbrella");
    }
    assert_eq!(received_tokens(&of_acme).await, ["token-of-acme"; 3]);
    assert_eq!(received_tokens(&of_umbrella).await, ["token-of-umbrella"; 3]);

    let reads = vault.responses("secret/data/acme/tickets/helpdesk");
    let by_service: Vec<_> =
        reads.iter().filter(|read| read["auth"]["metadata"]["subject"].is_string()).collect();
    let [read] = &by_service[..] else { panic!("{reads:?}") };
    let metadata = &read["auth"]["metadata"];
    assert_eq!(
        (&metadata["subject"], &metadata["tenant"]),
        (&json!("bob"), &json!("acme")),
        "{read}"
    );
    assert!(!mesh.log().contains("token-of-"), "a helpdesk's token is in the log");
}

#[tokio::test]
async fn a_changed_token_is_reread_at_once_and_a_rejected_one_is_reported() {
    let mesh = TestMesh::start().await;
    let vault = vault(&mesh).await;
    let helpdesk = MockServer::start().await;
    serve(&helpdesk, "a ticket", "token-of-today").await;
    store_token(&vault, "acme", &helpdesk, "token-of-today").await;
    let (_service, edge) = mesh.tickets(VaultConfig::new(vault.url.clone())).await;
    let bob = edge.client(&mesh.client("bob").await);
    assert_eq!(title(&search(&bob).await), "a ticket");

    store_token(&vault, "acme", &helpdesk, "token-of-tomorrow").await;
    serve(&helpdesk, "a ticket of tomorrow", "token-of-tomorrow").await;
    assert_eq!(title(&search(&bob).await), "a ticket of tomorrow");
    assert_eq!(title(&search(&bob).await), "a ticket of tomorrow");
    assert_eq!(
        received_tokens(&helpdesk).await,
        ["token-of-today", "token-of-tomorrow", "token-of-tomorrow"]
    );

    serve(&helpdesk, "a ticket", "another-token").await;
    let refused = search(&bob).await;
    assert_eq!(refused.json["result"]["isError"], true, "{refused:?}");
    assert!(refused.message().contains("does not accept the token"), "{refused:?}");
    assert!(!refused.text.contains("Invalid token"), "{refused:?}");
    assert_eq!(received_tokens(&helpdesk).await, ["token-of-tomorrow"]);
}
