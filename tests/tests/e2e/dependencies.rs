//! The servers that `drawbridge up` starts with the mesh if the machine has their binaries.

use drawbridge_mesh::dependencies::{Binaries, Dependencies};
use drawbridge_tests::{TestMesh, bao};
use serde_json::{Value, json};

#[tokio::test]
async fn a_mesh_uses_the_servers_of_the_machine_and_stops_them_at_its_end() {
    let binaries = Binaries { vault: Some(bao()), ..Binaries::find() };
    assert!(binaries.redis.is_some() && binaries.postgres.is_some(), "{binaries:?}");
    let dependencies =
        Dependencies::start(&binaries).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    dependencies.migrate().await.expect("schemas");
    let mesh = TestMesh::with(|config| {
        config.redis_url = dependencies.redis_url();
        config.vault = dependencies.mesh_vault();
        config.invoices_database_url = dependencies.invoices_database_url().expect("a database");
    })
    .await;
    let found = mesh.client("carol").await.call_tool("invoices_search", json!({})).await;
    assert_eq!(found.json["result"]["structuredContent"]["invoices"], json!([]), "{found:?}");
    // Vault's audit log names the caller for whom it created the database user.
    let audit_file = dependencies.mesh_vault().and_then(|vault| vault.audit_file).expect("a file");
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
    drop(dependencies);
    assert!(!std::path::Path::new(&audit_file).exists());
}
