//! A real Keycloak as the issuer of a real mesh.

use std::fs;

use drawbridge_tests::{Keycloak, TestMesh, repository};
use http::StatusCode;
use serde_json::{Value, json};

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}

#[tokio::test]
#[ignore = "it needs Java and Maven: make keycloak-test"]
async fn users_of_keycloak_get_the_permissions_of_their_groups() {
    let keycloak = Keycloak::start().await;
    let mesh = TestMesh::with(|config| {
        let example =
            fs::read_to_string(repository().join("deploy/keycloak/issuers.toml")).expect("a file");
        let issuer = "http://127.0.0.1:8080/realms/drawbridge";
        assert!(example.contains(issuer));
        let file = config.policies.join("issuers.toml");
        fs::write(&file, example.replace(issuer, keycloak.issuer.as_str())).expect("a file");
        config.issuers = Some(file);
    })
    .await;

    let alice = keycloak.sign_in("alice", "alice").await;
    let engineer = mesh.client_with(text(&alice, "access_token"));
    assert_eq!(engineer.tools().await, ["code_list_files", "code_search"]);
    let found = engineer.call_tool("code_search", json!({ "query": "fn main" })).await;
    assert_eq!((found.status, found.error_code()), (StatusCode::OK, None), "{found:?}");

    let bob = keycloak.sign_in("bob", "bob").await;
    let supporter = mesh.client_with(text(&bob, "access_token"));
    assert!(supporter.tools().await.iter().all(|tool| tool.starts_with("tickets_")));
    let denied = supporter.call_tool("code_search", json!({ "query": "fn main" })).await;
    assert!(denied.is_hidden(), "{denied:?}");

    // Keycloak's other tokens are rejected, although the same keys sign them.
    for other in ["id_token", "refresh_token"] {
        let refused = mesh.client_with(text(&alice, other)).call("tools/list", json!({})).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{other}: {refused:?}");
        println!("its {other} is rejected: {}", refused.message());
    }

    // A client's service account is a workload; policies permit it by its group.
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "nightly"),
        ("client_secret", "nightly"),
    ];
    let nightly = keycloak.token(&form).await;
    let program = mesh.client_with(text(&nightly, "access_token"));
    assert_eq!(program.tools().await, ["code_list_files", "code_search"]);
    println!("{}: alice and nightly are permitted, bob is not", keycloak.issuer);
}
