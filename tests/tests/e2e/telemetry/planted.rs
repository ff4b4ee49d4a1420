//! Secrets, tokens and sensitive arguments are in no span, log line, log record, metric or audit
//! record.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use drawbridge_audit::AuditConfig;
use drawbridge_tests::{REPLICA_SECRET, audit_calls, audit_decisions, serve_conformance};

use super::*;

/// In every sensitive argument of the test.
const SENSITIVE: &str = "planted-sensitive-argument";
const PSEUDONYM_KEY: &str = "planted-key-of-pseudonyms-of-32-bytes";
const TOKEN_OF_COLLECTOR: &str = "planted-token-of-the-collector";
/// A token that auth refuses.
const REFUSED_TOKEN: &str = "planted-token-that-is-refused";
const CLIENT_SECRET: &str = "planted-transaction-token";

/// Every file below a folder, as text.
fn texts(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            texts(&path, found);
        } else {
            found.push_str(&String::from_utf8_lossy(&fs::read(path).expect("a file")));
        }
    }
}

#[tokio::test]
async fn planted_secrets_tokens_and_sensitive_arguments_are_in_no_telemetry_and_no_audit_record() {
    let (collector, url) = Collector::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (audit, key) = (folder.path().join("audit"), folder.path().join("pseudonyms.key"));
    fs::create_dir(&audit).expect("a folder");
    fs::set_permissions(&audit, fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::write(&key, PSEUDONYM_KEY).expect("a file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    let audit_config = AuditConfig { audit_log: Some(audit.clone()), ..AuditConfig::default() };
    let mesh = TestMesh::with(|config| {
        serve_conformance(config);
        export_all(config, url, OtlpProtocol::Grpc);
        let telemetry = &mut config.telemetry;
        let headers = format!("authorization=Bearer%20{TOKEN_OF_COLLECTOR}");
        let variables = telemetry.otlp_variables.clone();
        telemetry.otlp_variables = variables.with("OTEL_EXPORTER_OTLP_HEADERS", &headers);
        telemetry.pseudonym_key_file = Some(key);
        config.audit = audit_config.clone();
    })
    .await;
    let (_, service, edge) = mesh
        .conformance(|config| {
            config.audit = audit_config;
            config.audit.audit_replica = Some("second".to_owned());
            config.secret = Some(REPLICA_SECRET.into());
        })
        .await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    let of_edge = edge.client(&alice);

    let reply = |text: Value| {
        json!({
            "ticket_id": "1", "text": text, "internal": true, "idempotency_key": "key-0001",
        })
    };
    let mut requests = Vec::new();
    let calls = [
        // Allowed, denied, and invalid in each way.
        (&of_edge, "test_who_am_i", json!({ "secret": SENSITIVE })),
        (&of_edge, "test_who_am_i", json!({ "secret": [SENSITIVE] })),
        (&of_edge, "test_who_am_i", json!({ "secret": { "a": SENSITIVE } })),
        (&bob, "tickets_reply", reply(json!(SENSITIVE))),
        (&bob, "tickets_reply", reply(json!([SENSITIVE]))),
        (&bob, "tickets_reply", reply(json!(SENSITIVE.repeat(1_000)))),
        (&alice, "tickets_reply", reply(json!(SENSITIVE))),
    ];
    for (client, tool, arguments) in calls {
        let reply = client.call_tool(tool, arguments).await;
        requests.push((tool, reply.request_id().to_owned()));
    }
    // Tokens that are refused, and internal headers that clients may not send.
    mesh.client_with(REFUSED_TOKEN).call("tools/list", json!({})).await;
    let request = alice.post().header("txn-token", CLIENT_SECRET).body("{");
    alice.send(request).await;

    let mut everything = mesh.log();
    let admins = mesh.mesh.services.iter().chain([&edge.hosted]);
    for admin in admins {
        let url = format!("http://{}/metrics", admin.running.admin);
        let scrape = reqwest::get(url).await.expect("metrics").text().await.expect("metrics");
        everything.push_str(&scrape);
    }
    let tokens = [alice.token().to_owned(), bob.token().to_owned()];
    for hosted in [edge.hosted, service] {
        hosted.stop().await;
    }
    mesh.stop().await;
    let (spans, points, records) = (collector.spans(), collector.points(), collector.records());
    write!(everything, "{spans:?}{points:?}{records:?}").expect("memory");
    texts(&audit, &mut everything);

    // All of it is there, so that what is not there was left out.
    let (decisions, calls) = (audit_decisions(&audit), audit_calls(&audit));
    for (tool, id) in &requests {
        assert!(everything.contains(tool), "{tool}");
        let has_id = |attribute: Option<&str>| attribute == Some(id);
        assert!(spans.iter().any(|span| has_id(span.attribute("request_id"))), "{tool}");
        assert!(records.iter().any(|record| has_id(record.attribute("request_id"))), "{tool}");
        assert!(calls.iter().any(|call| call.request_id == *id), "{tool} in {calls:#?}");
    }
    assert!(!decisions.is_empty() && !points.is_empty());
    let is_token = |word: &&str| word.starts_with("eyJ") && word.matches('.').count() == 2;
    let words =
        everything.split(|letter: char| !letter.is_ascii_alphanumeric() && !"._-".contains(letter));
    assert_eq!(words.into_iter().find(is_token), None, "a token of anyone");
    for (what, planted) in [
        ("a sensitive argument", SENSITIVE),
        ("the key of pseudonyms", PSEUDONYM_KEY),
        ("the token of the collector", TOKEN_OF_COLLECTOR),
        ("a refused token", REFUSED_TOKEN),
        ("a token of a client", CLIENT_SECRET),
        ("the secret of the edge", REPLICA_SECRET),
        ("a token of alice", &tokens[0]),
        ("a token of bob", &tokens[1]),
    ] {
        let at = everything.find(planted);
        let around = at.map(|at| {
            let from =
                (0..=at.saturating_sub(300)).rev().find(|it| everything.is_char_boundary(*it));
            everything[from.unwrap_or_default()..].chars().take(600).collect::<String>()
        });
        assert_eq!(around, None, "{what}");
    }
}
