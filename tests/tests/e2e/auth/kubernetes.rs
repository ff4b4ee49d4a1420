//! Pods call tool services with the tokens of their service accounts.

use std::fs;

use drawbridge_tests::{TestIssuer, TestMesh, now};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use tonic::Code;

use crate::identity::{call_with, contract, exchange};

const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
const LIST: &str = "drawbridge.code.v1.CodeService/ListFiles";
const POLICY: &str = r#"
@id("code-for-the-indexers-namespace")
permit (
  principal is Workload in Group::"kubernetes:indexers",
  action == Action::"code_list_files",
  resource
);
"#;

/// A mesh that trusts the service accounts of a cluster whose keys the test holds.
async fn mesh(cluster: &TestIssuer) -> TestMesh {
    let jwks_url = cluster.url.join("/jwks").expect("a URL");
    TestMesh::with(move |config| {
        let file = config.policies.join("issuers.toml");
        let table = format!(
            "[[issuers]]\nissuer = \"{CLUSTER}\"\npreset = \"kubernetes\"\njwks_url = \"{jwks_url}\"\nallow_private_addresses = true\n"
        );
        fs::write(&file, table).expect("a file");
        config.issuers = Some(file);
        fs::write(config.policies.join("indexers.cedar"), POLICY).expect("a file");
    })
    .await
}

/// A projected token, as a cluster issues it.
fn projected(cluster: &TestIssuer, namespace: &str, account: &str, over: &Value) -> String {
    let mut claims = json!({
        "aud": ["drawbridge-auth"], "exp": now() + 600, "iat": now(), "nbf": now(), "iss": CLUSTER,
        "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
        "kubernetes.io": {
            "namespace": namespace,
            "pod": { "name": format!("{account}-0"), "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33" },
            "serviceaccount": { "name": account, "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af" },
            "warnafter": now() + 540,
        },
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
    });
    claims.as_object_mut().expect("claims").extend(over.as_object().expect("claims").clone());
    let mut header = Header::new(Algorithm::ES256);
    (header.typ, header.kid) = (None, cluster.header().kid);
    cluster.sign(&header, &claims)
}

#[tokio::test]
async fn a_pod_calls_the_rpcs_that_policies_permit_to_its_namespace() {
    let cluster = TestIssuer::start().await;
    let mesh = mesh(&cluster).await;
    let code = &mesh.mesh.state.services["code"];
    let contract = contract(code).await;
    let service =
        contract.pool.get_service_by_name("drawbridge.code.v1.CodeService").expect("a service");
    let method = |name| service.methods().find(|method| method.name() == name).expect("a method");

    let own = projected(&cluster, "indexers", "nightly", &json!({}));
    let token = exchange(&mesh, &own, LIST).await.expect("a transaction token");
    assert_eq!(call_with(code, &method("ListFiles"), &[&token]).await, Code::Ok);
    assert_eq!(call_with(code, &method("Search"), &[&token]).await, Code::Unauthenticated);

    // Another RPC, another namespace, and a namespace only in the account's name.
    let search = exchange(&mesh, &own, "drawbridge.code.v1.CodeService/Search").await;
    assert!(search.expect_err("no token").contains("no policy permits it"));
    for (namespace, account) in [("web", "nightly"), ("web", "indexers"), ("Indexers", "nightly")] {
        let refused =
            exchange(&mesh, &projected(&cluster, namespace, account, &json!({})), LIST).await;
        assert!(
            refused.expect_err("no token").contains("no policy permits it"),
            "{namespace}/{account}"
        );
    }
    for (over, why) in [
        (json!({ "aud": [CLUSTER] }), "another audience"),
        (json!({ "iss": "https://other-cluster.example" }), "another issuer"),
        (json!({ "exp": now() - 60 }), "expired"),
    ] {
        let refused =
            exchange(&mesh, &projected(&cluster, "indexers", "nightly", &over), LIST).await;
        assert!(refused.expect_err("no token").contains(why), "{why}");
    }
    let untrusted = TestIssuer::start().await;
    let forged =
        exchange(&mesh, &projected(&untrusted, "indexers", "nightly", &json!({})), LIST).await;
    assert!(forged.expect_err("no token").contains("signature is not valid"));
}
