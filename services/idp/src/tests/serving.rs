//! Startup, metadata, cross-origin rules, limits, and redaction.

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use drawbridge_config::Mistake;
use drawbridge_runtime::{Listen, LogFormat, LogSink, Telemetry, TelemetryConfig};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::harness::{Server, WORKLOAD_SECRET, callback, config, tokens};
use crate::{Config, StartError, Workload, start, users};

async fn start_error(config: Config) -> StartError {
    let telemetry = Telemetry::new("idp", &TelemetryConfig::default()).unwrap();
    start(config, &telemetry).await.expect_err("it must not start")
}

fn users_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn a_non_loopback_address_is_rejected_unless_allowed() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = start_error(Config { listen: Listen::Address(everywhere), ..config() }).await;
    assert!(matches!(refused, StartError::NonLoopback { address } if address == everywhere));
    let refused =
        start_error(Config { admin_listen: Listen::Address(everywhere), ..config() }).await;
    assert!(matches!(refused, StartError::NonLoopback { .. }));
    let (bound, _) = Listen::bind(everywhere).unwrap();
    let refused = start_error(Config { listen: bound.clone(), ..config() }).await;
    assert!(refused.to_string().contains("--allow-non-loopback"));
    Server::start_with(Config { listen: bound, allow_non_loopback: true, ..config() }).await;
}

#[tokio::test]
async fn an_invalid_configuration_is_rejected() {
    let issuer = Some("https://idp.example/path".parse().unwrap());
    assert!(matches!(start_error(Config { issuer, ..config() }).await, StartError::Issuer { .. }));
    assert!(matches!(
        start_error(Config { resources: vec![], ..config() }).await,
        StartError::NoResource
    ));
    let scopes = vec!["two words".into()];
    assert!(matches!(start_error(Config { scopes, ..config() }).await, StartError::Scope));

    let file = users_file("[[users]]\nusername = 'a'\npassword = 'hush'\nadmin = true\n");
    let error = start_error(Config { users: Some(file.path().to_owned()), ..config() }).await;
    let StartError::Users(invalid) = &error else { panic!("{error:?}") };
    assert!(matches!(invalid.mistakes(), [Mistake { place, .. }] if place.line == 4), "{error:?}");
    assert!(!format!("{error:?}").contains("hush"));

    let redirect_schemes = vec!["javascript".into()];
    let error = start_error(Config { redirect_schemes, ..config() }).await;
    assert!(matches!(error, StartError::RedirectScheme { scheme } if scheme == "javascript"));

    // A workload with a user's name would have that user's subject.
    let workloads = vec![Workload {
        client_id: "alice".to_owned().into(),
        client_secret: "x".into(),
        groups: vec![],
        internal: true,
    }];
    let error = start_error(Config { workloads, ..config() }).await;
    assert!(matches!(error, StartError::DuplicateName { name } if name == "alice"));
}

#[tokio::test]
async fn the_metadata_is_published_under_both_well_known_names() {
    let issuer = Some("https://idp.example".parse().unwrap());
    let server = Server::start_with(Config { issuer, ..config() }).await;
    let oauth: Value =
        server.get("/.well-known/oauth-authorization-server").await.json().await.unwrap();
    let openid: Value = server.get("/.well-known/openid-configuration").await.json().await.unwrap();
    assert_eq!(oauth, openid);
    for path in ["/.well-known/oauth-authorization-server/", "/.well-known/openid-configuration/"] {
        assert_eq!(server.get(path).await.json::<Value>().await.unwrap(), oauth, "{path}");
    }
    assert_eq!(oauth["issuer"], "https://idp.example");
    assert_eq!(oauth["token_endpoint"], "https://idp.example/token");
    assert_eq!(oauth["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(oauth["scopes_supported"], json!(["mcp"]));
    assert_eq!(oauth["authorization_response_iss_parameter_supported"], true);
    assert!(oauth["client_id_metadata_document_supported"].is_null());
}

#[tokio::test]
async fn browsers_of_any_origin_may_call_client_endpoints_and_nothing_else() {
    let server = Server::start().await;
    let preflight = async |path: &str, method: &str| {
        let request = server
            .http
            .request(Method::OPTIONS, server.url(path))
            .header(header::ORIGIN, "https://inspector.example")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, method)
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,mcp-protocol-version");
        request.send().await.unwrap()
    };
    for (path, method) in [
        ("/.well-known/oauth-authorization-server", "GET"),
        ("/.well-known/jwks.json", "GET"),
        ("/token", "POST"),
        ("/register", "POST"),
    ] {
        let response = preflight(path, method).await;
        assert!(response.status().is_success(), "{path}");
        assert_eq!(response.headers()["access-control-allow-origin"], "*", "{path}");
        assert!(
            response.headers()["access-control-allow-headers"]
                .to_str()
                .unwrap()
                .contains("authorization")
        );
        assert!(!response.headers().contains_key("access-control-allow-credentials"));
    }
    let response = preflight("/authorize", "POST").await;
    assert!(!response.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_body_over_64_kib_is_rejected() {
    let server = Server::start().await;
    let body = "x".repeat(64 * 1024 + 1);
    for path in ["/token", "/register", "/authorize"] {
        let response = server.http.post(server.url(path)).body(body.clone()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
}

#[tokio::test]
async fn a_running_server_is_ready_and_returns_the_callers_request_id() {
    let server = Server::start().await;
    let ready = server.http.get(format!("http://{}/readyz", server.admin())).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    let request =
        server.http.get(server.url("/.well-known/jwks.json")).header("x-request-id", "req-1");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "req-1");
}

#[tokio::test]
async fn debug_output_redacts_passwords_and_secrets() {
    let config = config();
    assert!(!format!("{config:?}").contains(WORKLOAD_SECRET));
    let file = users_file(
        "[[users]]\nusername = 'a'\npassword = 'hush-1'\n[[workloads]]\nclient_id = 'b'\nclient_secret = 'hush-2'\n",
    );
    let users = users::load(Some(file.path()), &config.workloads, &[]).unwrap();
    let shown = format!("{users:?}");
    assert!(shown.contains("REDACTED"));
    assert!(!shown.contains("hush") && !shown.contains(WORKLOAD_SECRET), "{shown}");
}

#[test]
fn the_log_names_client_and_subject_but_no_code_token_or_password() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = LogSink::Memory(Arc::clone(&log));
    let config_of_log = TelemetryConfig {
        log_format: LogFormat::Json,
        log_sink: sink,
        ..TelemetryConfig::default()
    };
    let outer = tokio::runtime::Runtime::new().unwrap();
    let entered = outer.enter();
    let telemetry = Telemetry::new("idp", &config_of_log).unwrap();
    drop(entered);
    let file = users_file("[[users]]\nusername = 'alice'\npassword = 'hush-hush'\n");
    let config = Config { users: Some(file.path().to_owned()), ..config() };

    // The server's tasks log to this telemetry, because they run on its runtime's threads.
    let runtime = telemetry.runtime(1).unwrap();
    let secrets = runtime.block_on(async {
        let server = Server::start_with(config).await;
        let client_id = server.public_client().await;
        let request = server.pending(&client_id, &[]).await;
        server.decide(&request, ("alice", "wrong-guess"), "allow").await;
        let code =
            callback(&server.decide(&request, ("alice", "hush-hush"), "allow").await)["code"]
                .clone();
        let issued = tokens(server.redeem(&client_id, &code, &[]).await).await;
        server.redeem(&client_id, &code, &[]).await;
        let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        assert!(log.contains(&client_id) && log.contains(r#""subject":"alice""#), "{log}");
        assert!(
            log.contains("issued an access token") && log.contains("a code was used again"),
            "{log}"
        );
        let token = |field: &str| issued[field].as_str().unwrap().to_owned();
        let (access, refresh) = (token("access_token"), token("refresh_token"));
        [request, code, access, refresh, "hush-hush".into(), "wrong-guess".into()]
    });
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in {log}");
    }
}
