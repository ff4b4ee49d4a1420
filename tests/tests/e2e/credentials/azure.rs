//! Azure Key Vault, faked after the documented REST APIs of Key Vault and Entra ID; no emulator
//! covers them.

use std::fs;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    serve::Listener as _,
};
use azure_core::http::{ClientOptions, Transport};
use azure_identity::{
    ClientAssertionCredentialOptions, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use drawbridge_credentials::{AzureKeyVault, CredentialsError};
use drawbridge_tests::{TestAuthority, TlsListener};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::*;

const KEY_VAULT: &str = "drawbridge.vault.azure.net";
const ENTRA: &str = "login.microsoftonline.com";
const ENTRA_TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const POD_TOKEN: &str = "a.projected.token";
const ACCESS_TOKEN: &str = "an-access-token-of-entra";

/// The received requests, in order: the path, and whether it carried a token.
type Received = Arc<Mutex<Vec<(String, bool)>>>;

/// Starts both servers. Returns credentials of `tickets` from them.
async fn start() -> (Credentials, Received) {
    let (authority, received) = (TestAuthority::new(), Received::default());
    let listener = TlsListener::bind(&authority.sign(&[KEY_VAULT, ENTRA])).await;
    let address = listener.local_addr().expect("an address");
    let server = Router::new().fallback(respond).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, server).await });
    let trusted = reqwest::Certificate::from_pem(authority.pem.as_bytes()).expect("a certificate");
    let http = reqwest::Client::builder().tls_certs_only([trusted]);
    let http = http.resolve(KEY_VAULT, address).resolve(ENTRA, address).build().expect("a client");

    let folder = tempfile::tempdir().expect("a folder").keep();
    let token = folder.join("token");
    fs::write(&token, POD_TOKEN).expect("a file");
    let transport = Some(Transport::new(Arc::new(http.clone())));
    let credential_options = ClientAssertionCredentialOptions {
        client_options: ClientOptions { transport, ..ClientOptions::default() },
    };
    let identity = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        credential_options,
        client_id: Some("tickets".to_owned()),
        tenant_id: Some(ENTRA_TENANT.to_owned()),
        token_file_path: Some(token),
    }));
    let url = format!("https://{KEY_VAULT}").parse().expect("a URL");
    let azure = AzureKeyVault::with("tickets", &url, identity.expect("an identity"), http);
    let source = CredentialSource::AzureKeyVault(azure.expect("a client").into());
    (Credentials::new(source, CredentialLimits::default()), received)
}

async fn respond(
    State(received): State<Received>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let path = uri.path().trim_end_matches('/').to_owned();
    received.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), token.is_some()));
    if path == format!("/{ENTRA_TENANT}/oauth2/v2.0/token") {
        assert!(body.contains(POD_TOKEN) && body.contains("client_id=tickets"), "{body}");
        let token =
            json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": ACCESS_TOKEN });
        return Json(token).into_response();
    }
    if token != Some(&format!("Bearer {ACCESS_TOKEN}")) {
        let challenge = format!(
            "Bearer authorization=\"https://{ENTRA}/{ENTRA_TENANT}\", resource=\"https://vault.azure.net\""
        );
        let error = json!({ "error": { "code": "Unauthorized", "message": "AKV10000" } });
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], Json(error))
            .into_response();
    }
    let error = |status: StatusCode, code: &str| {
        (status, Json(json!({ "error": { "code": code, "message": "an internal detail" } })))
            .into_response()
    };
    match path.strip_prefix("/secrets/") {
        Some("acme--tickets--helpdesk") => found(&path, r#"{"token":"of-acme"}"#),
        Some("acme-2d1--tickets--helpdesk") => found(&path, "of-plain-text"),
        Some("acme--tickets--closed") => error(StatusCode::FORBIDDEN, "Forbidden"),
        Some("acme--tickets--busy") => error(StatusCode::TOO_MANY_REQUESTS, "Throttled"),
        Some("acme--tickets--broken") => {
            error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")
        }
        _ => error(StatusCode::NOT_FOUND, "SecretNotFound"),
    }
}

fn found(path: &str, value: &str) -> Response {
    let id = format!("https://{KEY_VAULT}{path}/4387e9f3d6e14c459867679a90fd0f79");
    let attributes = json!({ "enabled": true, "created": 1_493_938_410, "updated": 1_493_938_410 });
    let secret: Value = json!({ "value": value, "id": id, "attributes": attributes });
    Json(secret).into_response()
}

#[test]
fn a_tenant_reads_only_its_own_secrets_and_no_secret_is_logged() {
    let (log, metrics) = observed(move || async move {
        let (credentials, received) = start().await;
        let read = async |tenant: Option<&str>, name: &str| {
            credentials.secret(&caller_of_tenant(tenant), &context(), name).await
        };
        let secret = read(Some("acme"), "helpdesk").await.expect("a secret");
        assert_eq!(secret.field("token").expect("a field").expose_secret(), "of-acme");
        let plain = read(Some("acme-1"), "helpdesk").await.expect("a secret");
        assert_eq!(plain.field("value").expect("a field").expose_secret(), "of-plain-text");
        // The first request discovers the vault's authority; later ones carry a token.
        let entra = format!("/{ENTRA_TENANT}/oauth2/v2.0/token");
        let received = received.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let expected = [
            ("/secrets/acme--tickets--helpdesk", false),
            (entra.as_str(), false),
            ("/secrets/acme--tickets--helpdesk", true),
            ("/secrets/acme-2d1--tickets--helpdesk", true),
        ];
        assert_eq!(
            received.iter().map(|(path, token)| (path.as_str(), *token)).collect::<Vec<_>>(),
            expected
        );

        for tenant in [None, Some("acme/code"), Some("..")] {
            let refused = read(tenant, "helpdesk").await.expect_err("no secret");
            assert!(matches!(refused, CredentialsError::NoTenant), "{tenant:?}: {refused:?}");
        }
        check_secrets_only(&credentials).await;
        credentials.close().await;
    });
    for secret in ["of-acme", "of-plain-text", ACCESS_TOKEN, POD_TOKEN] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret} is leaked: {log}");
    }
}

#[tokio::test]
async fn rejections_and_outages_of_key_vault_are_distinct_errors() {
    let (credentials, _) = start().await;
    let fails = async |name: &str| {
        credentials
            .secret(&caller_of_tenant(Some("acme")), &context(), name)
            .await
            .expect_err("no secret")
    };
    let missing = fails("nothing").await;
    assert!(matches!(missing, CredentialsError::NoSuchSecret), "{missing:?}");
    let too_long = fails(&"long".repeat(32)).await;
    assert!(matches!(too_long, CredentialsError::NoSuchSecret), "{too_long:?}");
    let refused = fails("closed").await;
    assert!(matches!(refused, CredentialsError::Refused { status: 403, .. }), "{refused:?}");
    assert!(!refused.to_string().contains("an internal detail"), "{refused}");
    for name in ["busy", "broken"] {
        let outage = fails(name).await;
        assert!(outage.is_retryable(), "{name}: {outage:?}");
    }
    credentials.close().await;
}
