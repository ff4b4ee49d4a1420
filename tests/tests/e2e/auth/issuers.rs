//! Issuers from a file, with the real policies.

use std::{
    fs,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, TestIssuer, TestMesh};
use http::StatusCode;
use serde_json::{Value, json};

async fn mesh_with(toml: String) -> TestMesh {
    TestMesh::with(move |config| {
        let file = config.policies.join("issuers.toml");
        fs::write(&file, toml).expect("a file");
        config.issuers = Some(file);
    })
    .await
}

#[tokio::test]
async fn claim_mappings_of_an_issuer_feed_the_policies() {
    let issuer = TestIssuer::start().await;
    let mesh = mesh_with(format!(
        "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\nclaims.groups = \"https://acme.example/teams.mine\"\n",
        issuer.name()
    ))
    .await;
    let claims = issuer.claims(mesh.mesh.mcp_url.as_str());
    let tools = async |over: Value| {
        let mut claims = claims.clone();
        claims
            .as_object_mut()
            .expect("an object")
            .extend(over.as_object().expect("an object").clone());
        mesh.client_with(&issuer.sign(&issuer.header(), &claims)).tools().await.len()
    };
    // This issuer's `groups` claim is not mapped.
    assert_eq!(tools(json!({ "groups": ["engineering"] })).await, 0);
    assert_eq!(
        tools(json!({ "https://acme.example/teams": { "mine": ["engineering"] } })).await,
        2
    );
    assert_eq!(tools(json!({ "https://acme.example/teams": { "mine": "engineering" } })).await, 2);
    // The built-in issuer keeps its own mapping.
    assert_eq!(mesh.client("alice").await.tools().await.len(), 2);
}

#[tokio::test]
async fn keys_are_not_fetched_from_inside_the_network_unless_that_is_allowed() {
    let inside = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = inside.local_addr().expect("an address").port();
    let connections = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        for _ in inside.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let hosts = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
    ];
    let tables = hosts.iter().map(|host| {
        format!("[[issuers]]\nissuer = \"https://{host}\"\njwks_url = \"https://{host}/keys\"\n")
    });
    let mesh = mesh_with(tables.collect()).await;
    let signer = TestIssuer::start().await;
    for host in &hosts {
        let mut claims = signer.claims(mesh.mesh.mcp_url.as_str());
        claims["iss"] = json!(format!("https://{host}"));
        let token = signer.sign(&signer.header(), &claims);
        let reply = mesh.client_with(&token).call("tools/list", json!({})).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert!(mesh.log().contains("leads to an address that is not public"));
}

#[tokio::test]
async fn a_rotated_issuer_key_is_fetched_and_tokens_of_the_old_key_are_rejected() {
    let mut issuer = TestIssuer::start().await;
    let mesh = TestMesh::with(|config| config.issuer = Some(issuer.url.clone().into())).await;
    let claims = issuer.claims(mesh.mesh.mcp_url.as_str());
    let old = mesh.client_with(&issuer.sign(&issuer.header(), &claims));
    assert_eq!(old.tools().await.len(), 2);
    issuer.rotate();
    let new = mesh.client_with(&issuer.sign(&issuer.header(), &claims));
    let rotated = Instant::now();
    while new.call("tools/list", json!({})).await.status != StatusCode::OK {
        assert!(rotated.elapsed() < Duration::from_secs(15), "the new key is not found");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(issuer.keys_fetched(), 2);
    // The old token stays in the cache until its key is known to be removed.
    let seen = Instant::now();
    while old.call("tools/list", json!({})).await.status != StatusCode::UNAUTHORIZED {
        assert!(seen.elapsed() < Duration::from_secs(1), "the old key is still accepted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An edge serves calls of cached decisions without auth, so a removed issuer must end them.
#[tokio::test]
async fn an_edited_issuers_file_takes_effect_without_a_restart_and_an_invalid_edit_changes_nothing()
{
    let (partner, other) = (TestIssuer::start().await, TestIssuer::start().await);
    let table = |issuer: &TestIssuer| {
        format!("[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\n", issuer.name())
    };
    let mesh = mesh_with(table(&partner)).await;
    let client = |issuer: &TestIssuer| {
        let claims = issuer.claims(mesh.mesh.mcp_url.as_str());
        mesh.client_with(&issuer.sign(&issuer.header(), &claims))
    };
    let (of_partner, of_other) = (client(&partner), client(&other));
    let becomes = async |client: &Client, wanted: StatusCode| {
        let edited = Instant::now();
        loop {
            let reply = client.call("tools/list", json!({})).await;
            if reply.status == wanted {
                return;
            }
            assert!(edited.elapsed() < Duration::from_secs(20), "it is still {reply:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    becomes(&of_partner, StatusCode::OK).await;
    becomes(&of_other, StatusCode::UNAUTHORIZED).await;
    mesh.write_policy("issuers.toml", &format!("{}{}", table(&partner), table(&other)));
    becomes(&of_other, StatusCode::OK).await;

    mesh.write_policy("issuers.toml", &format!("{}jwks = 1\n", table(&other)));
    while !admin(&mesh, "/readyz").await.contains("the issuers file is invalid: see the log") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let metrics = admin(&mesh, "/metrics").await;
    for line in ["auth_issuers_current 0", "auth_issuers_reloads_failed_total 1"] {
        assert!(metrics.lines().any(|is| is == line), "{line}: {metrics}");
    }
    assert!(mesh.log().contains("unknown field `jwks`"));
    becomes(&of_partner, StatusCode::OK).await;

    mesh.write_policy("issuers.toml", &table(&other));
    becomes(&of_partner, StatusCode::UNAUTHORIZED).await;
    becomes(&of_other, StatusCode::OK).await;
    assert_eq!(admin(&mesh, "/readyz").await, r#"{"ready":true}"#);
    assert_eq!(
        (partner.keys_fetched(), other.keys_fetched()),
        (1, 1),
        "keys that did not change stay cached"
    );
}

/// The text at a path of auth's admin port.
async fn admin(mesh: &TestMesh, path: &str) -> String {
    let auth = mesh.mesh.service("auth").expect("auth");
    let response = reqwest::get(format!("http://{}{path}", auth.running.admin)).await;
    response.expect("a response").text().await.expect("a text")
}
