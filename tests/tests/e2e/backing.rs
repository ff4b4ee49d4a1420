//! What `drawbridge up` starts beside the mesh where it is on the machine.

use drawbridge_cli::backing::{Backing, Programs};
use drawbridge_tests::{TestMesh, bao};
use serde_json::{Value, json};

#[tokio::test]
async fn a_mesh_stands_on_the_servers_of_the_machine_which_end_with_it() {
    let programs = Programs { vault: Some(bao()), ..Programs::find() };
    assert!(programs.redis.is_some() && programs.postgres.is_some(), "{programs:?}");
    let backing =
        Backing::start(&programs).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    backing.migrate().await.expect("schemas");
    let mesh = TestMesh::with(|config| {
        config.redis_url = backing.redis_url();
        config.vault = backing.mesh_vault();
        config.invoices_database_url = backing.invoices_database_url().expect("a database");
    })
    .await;
    let found = mesh.client("carol").await.call_tool("invoices_search", json!({})).await;
    assert_eq!(found.json["result"]["structuredContent"]["invoices"], json!([]), "{found:?}");
    // Vault has written down whose call it was that a user was made for.
    let audit_file = backing.mesh_vault().and_then(|vault| vault.audit_file).expect("a file");
    let audit = std::fs::read_to_string(&audit_file).expect("an audit file");
    let records = audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let leases: Vec<_> = records
        .filter(|record| {
            record["type"] == "response"
                && record["request"]["path"] == "database/creds/invoices-reader"
        })
        .collect();
    let [lease] = &leases[..] else { panic!("{leases:?}") };
    let metadata = &lease["auth"]["metadata"];
    assert_eq!(
        (&metadata["subject"], &metadata["tenant"]),
        (&json!("carol"), &json!("acme")),
        "{lease}"
    );
    let request_id = found.headers["x-request-id"].to_str().expect("a text");
    assert_eq!(lease["request"]["headers"]["x-request-id"], json!([request_id]), "{lease}");
    mesh.stop().await;
    drop(backing);
    assert!(!std::path::Path::new(&audit_file).exists());
}
