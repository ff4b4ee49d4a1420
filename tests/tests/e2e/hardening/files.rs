//! Permissions of files and folders, and access to admin ports.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use drawbridge_mesh::state::MeshState;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, exchange_response::Outcome as Exchanged,
};
use drawbridge_tests::{TestMesh, audit_decisions, connect, serve_conformance, sign_in};
use drawbridge_transport::transaction_token::TransactionClaims;
use http::StatusCode;
use serde_json::json;

use crate::identity::context;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("metadata").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

/// The attack: any user of the machine could read the audit log with its arguments.
#[tokio::test]
async fn the_audit_log_is_readable_by_its_own_user_only() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("var/audit");
    let mesh = TestMesh::with(|config| config.audit.audit_log = Some(folder.clone())).await;
    let bob = mesh.client("bob").await;
    assert_eq!(bob.call_tool("tickets_search", json!({})).await.status, StatusCode::OK);
    mesh.stop().await;
    let (mut folders, mut files) = (vec![folder.clone()], 0);
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files >= 6, "logs and keys of auth, the edge and the idp: {files}");
    assert!(audit_decisions(&folder).iter().any(|decision| decision.item == "tickets_search"));
}

/// The state file decides where the command line sends its user's tokens.
#[tokio::test]
async fn the_state_of_a_mesh_is_neither_written_to_nor_read_from_a_folder_writable_by_others() {
    let mesh = TestMesh::start().await;
    let state = &mesh.mesh.state;
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("state/drawbridge");
    let file = state.write(&folder).expect("a state");
    let path = folder.join(format!("mesh-{}.json", state.name));
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    let known = || MeshState::all(&folder).map(|meshes| meshes.len());
    assert_eq!(known().expect("a state"), 1);

    let check_rejected = |folder: &Path, reason: &str| {
        for error in [state.write(folder).err(), MeshState::all(folder).err()] {
            let error =
                error.unwrap_or_else(|| panic!("accepted although it {reason}")).to_string();
            assert!(error.contains(reason), "{error}");
        }
    };
    for mode in [0o770, 0o707, 0o1777] {
        set_mode(&folder, mode);
        check_rejected(&folder, "can be written by others");
    }
    set_mode(&folder, 0o755);
    assert_eq!(known().expect("a state"), 1, "others may list the folder");
    let link = parent.path().join("link");
    symlink(&folder, &link).expect("a link");
    check_rejected(&link, "is a symbolic link");
    // A folder of another user; only root can create one.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&folder, Some(65_534), None).expect("another owner");
        check_rejected(&folder, "belongs to user 65534");
        std::os::unix::fs::chown(&folder, Some(0), None).expect("the previous owner");
    }
    // The file itself.
    set_mode(&path, 0o666);
    assert!(known().expect_err("writable by others").to_string().contains("written by others"));
    fs::rename(&path, folder.join("planted")).expect("a moved file");
    symlink(folder.join("planted"), &path).expect("a link");
    assert!(known().is_err(), "a link is not followed");
    drop(file);
    assert_eq!(known().expect("no error"), 0);
}

/// The attack (DNS rebinding): a page whose name resolves to the admin port read metrics and policy
/// errors.
#[tokio::test]
async fn the_admin_port_accepts_only_addresses_and_configured_names_as_host() {
    let mesh = TestMesh::with(|config| {
        config.telemetry.admin_allowed_hosts = vec!["metrics.acme.internal".to_owned()];
    })
    .await;
    let http = reqwest::Client::new();
    for service in &mesh.mesh.services {
        let admin = service.running.admin;
        let get = async |path: &str, host: &str| {
            let request = http.get(format!("http://{admin}{path}")).header("host", host);
            request.send().await.expect("an answer").status()
        };
        for path in ["/healthz", "/readyz", "/metrics"] {
            for host in [
                &admin.to_string(),
                "10.0.0.7:7181",
                "[::1]:7181",
                "localhost:7181",
                "Metrics.acme.internal",
            ] {
                assert_eq!(get(path, host).await, StatusCode::OK, "{path} {host}");
            }
            for host in [
                "evil.example",
                "evil.example:7181",
                "127.0.0.1.evil.example",
                "localhost.evil.example",
            ] {
                assert_eq!(get(path, host).await, StatusCode::FORBIDDEN, "{path} {host}");
            }
        }
    }
    // Services and Vault fetch public keys from auth under any name.
    let keys = http.get(mesh.transaction_keys()).header("host", "auth.drawbridge.svc:7111");
    assert_eq!(keys.send().await.expect("an answer").status(), StatusCode::OK);
}

/// The attack: a caller reused the id of another request.
#[tokio::test]
async fn an_exchange_is_recorded_with_auths_own_request_id_and_the_callers() {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = TestMesh::with(|config| {
        config.audit.audit_log = Some(folder.path().to_owned());
    })
    .await;
    let state = &mesh.mesh.state;
    let subject_token = sign_in(&state.issuer, &state.internal_audience, "alice", "alice").await;
    let mut auth = AuthServiceClient::new(connect(&state.auth_url).expect("a channel"));
    let mut request_ids = Vec::new();
    for _ in 0..2 {
        let rpc = "drawbridge.code.v1.CodeService/ListFiles".to_owned();
        let request =
            pb::ExchangeRequest { subject_token: subject_token.clone(), rpc, ..Default::default() };
        let mut request = context().outgoing(request);
        request
            .metadata_mut()
            .insert("x-request-id", "chosen-by-the-caller".parse().expect("an id"));
        let answer = auth.exchange(request).await.expect("an answer");
        let request_id = answer
            .metadata()
            .get("x-request-id")
            .expect("an id")
            .to_str()
            .expect("text")
            .to_owned();
        let Some(Exchanged::Allowed(allowed)) = answer.into_inner().outcome else {
            panic!("not allowed")
        };
        let token = allowed.transaction_token.expect("a token").token;
        let claims = jsonwebtoken::dangerous::insecure_decode::<TransactionClaims>(&token)
            .expect("claims")
            .claims;
        assert_eq!(claims.txn, request_id);
        request_ids.push(request_id);
    }
    assert!(
        request_ids[0] != request_ids[1]
            && !request_ids.iter().any(|id| id == "chosen-by-the-caller"),
        "{request_ids:?}"
    );
    mesh.stop().await;
    let records = audit_decisions(folder.path());
    let own: Vec<_> = records.iter().map(|record| record.request_id.as_str()).collect();
    assert_eq!(own, request_ids);
    assert!(
        records
            .iter()
            .all(|record| record.caller_request_id.as_deref() == Some("chosen-by-the-caller"))
    );
}

/// The attack: the errors of a hidden RPC and an unknown one differed in text and in policy ids.
/// Auth also requested a scope that would not have helped.
#[tokio::test]
async fn a_hidden_rpc_is_rejected_like_an_unknown_one_and_no_useless_scope_is_requested() {
    const FORBID: &str = r#"
@id("not-with-the-scope")
forbid (principal, action == Action::"test_scoped", resource)
when { principal.scopes.contains("test:admin") };
@id("not-even-listed")
forbid (principal, action == Action::"code_list_files", resource);
"#;
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = TestMesh::with(|config| {
        serve_conformance(config);
        fs::write(config.policies.join("forbid.cedar"), FORBID).expect("a file");
        config.audit.audit_log = Some(folder.path().to_owned());
    })
    .await;
    let state = &mesh.mesh.state;
    let subject_token = sign_in(&state.issuer, &state.internal_audience, "alice", "alice").await;
    let mut auth = AuthServiceClient::new(connect(&state.auth_url).expect("a channel"));
    let mut refused = Vec::new();
    for rpc in [
        "drawbridge.code.v1.CodeService/ListFiles",
        "drawbridge.code.v1.CodeService/NoSuch",
        "drawbridge.conformance.v1.ConformanceService/Scoped",
    ] {
        let request = pb::ExchangeRequest {
            subject_token: subject_token.clone(),
            rpc: rpc.to_owned(),
            ..Default::default()
        };
        let answer =
            auth.exchange(context().outgoing(request)).await.expect("an answer").into_inner();
        let Some(Exchanged::Denied(denied)) = answer.outcome else { panic!("{rpc}: {answer:?}") };
        refused.push(denied);
    }
    assert!(
        refused.iter().all(|denied| *denied == refused[0] && denied.decision.is_none()),
        "{refused:?}"
    );

    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let reply = alice.call_tool("test_scoped", json!({})).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN, "{reply:?}");
    assert_ne!(reply.json["error"]["data"]["reason"], "insufficient_scope", "{reply:?}");
    mesh.stop().await;
    let records = audit_decisions(folder.path());
    let of = |rpc: &str| records.iter().find(|record| record.rpc.ends_with(rpc)).expect("a record");
    assert_eq!(of("/ListFiles").policy_ids, ["not-even-listed"]);
    assert_eq!(of("/NoSuch").outcome.as_str(), "not_in_catalog");
}
