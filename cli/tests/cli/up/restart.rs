//! A restart on the same ports.

use std::sync::Arc;

use serde_json::json;

use super::{Up, client::Client, first_port, signal, text};
use crate::new_state;

async fn sign_in(up: &Up, who: &str) -> Client {
    let text = |field: &str| up.report[field].as_str().expect("a text");
    Client::sign_in(text("mcpUrl"), text("issuer"), who).await
}

/// Regression: every client had to register and sign in again, and most failed instead.
#[tokio::test]
async fn signed_in_clients_survive_a_restart() {
    let port = first_port().to_string();
    let start = ["--embedded", "--first-port", &port];
    let up = Up::restart(new_state(), &start);
    let (mut alice, bob) = (sign_in(&up, "alice").await, sign_in(&up, "bob").await);
    alice.until_it_sees("code_search").await;
    let revoked = up.run("revoke", &["--subject", "bob"]);
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    assert_eq!(bob.call("tools/list", json!({})).await.0, 401);
    let state = Arc::clone(&up.state);
    up.stop();
    for file in ["idp", "revocations"] {
        let path =
            state.path().join(format!("{file}-{}.json", port.parse::<u16>().expect("a port") + 80));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path)
                .unwrap_or_else(|_| panic!("no {}", path.display()))
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }

    let mut up = Up::restart(state, &start);
    // Access and refresh tokens remain valid, and revocations persist.
    alice.until_it_sees("code_search").await;
    alice.refresh().await.expect("tokens");
    let (status, response) =
        alice.call("tools/call", json!({ "name": "code_list_files", "arguments": {} })).await;
    assert_eq!((status, &response["result"]["isError"]), (200, &json!(false)), "{response}");
    assert_eq!(bob.call("tools/list", json!({})).await.0, 401);

    // A kill gives it no chance to write its state.
    signal("-KILL", up.child.id());
    up.child.wait().expect("an end");
    let up = Up::restart(Arc::clone(&up.state), &start);
    alice.refresh().await.expect("tokens");
    alice.until_it_sees("code_search").await;

    let state = Arc::clone(&up.state);
    up.stop();
    let up = Up::restart(state, &[&start[..], &["--ephemeral"]].concat());
    assert_eq!(alice.refresh().await, Err("invalid_client".to_owned()));
    up.stop();
}
