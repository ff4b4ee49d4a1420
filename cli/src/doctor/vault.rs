//! Vault: whether it can be used, and whether it trusts auth's transaction tokens. Without a token
//! of an administrator: the same requests as a tool service makes.

use std::time::{Duration, UNIX_EPOCH};

use drawbridge_credentials::VaultConfig;
use drawbridge_runtime::{bounded, error_chain, tls};
use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::{
    check::{Check, Finding},
    http::{Answer, compare_time, send},
};

/// A Vault, and the services whose roles it must have.
#[derive(Clone, Debug)]
pub(super) struct VaultTarget {
    pub(super) config: VaultConfig,
    pub(super) services: Vec<String>,
}

impl VaultTarget {
    pub(super) fn check(self) -> Check {
        let subject = self.config.vault_url.to_string();
        Check::new("vault", subject, async move { self.inspect().await })
    }

    async fn inspect(&self) -> Vec<Finding> {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => {
                return vec![Finding::failed(
                    error,
                    "correct --vault-ca-file and --vault-client-certificate-file",
                )];
            }
        };
        let mut findings = self.health(&client).await;
        if findings.iter().all(|finding| finding.to_do.is_none()) {
            for service in &self.services {
                findings.push(self.role(&client, service).await);
            }
        }
        findings
    }

    fn client(&self) -> Result<reqwest::Client, String> {
        let read = |path: &std::path::Path| {
            let read = bounded::read_file(path, tls::PEM_BYTES_MAX);
            read.map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let invalid = |error: reqwest::Error| error_chain(&error);
        let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &self.config.vault_ca_file {
            let bundle = reqwest::Certificate::from_pem_bundle(&read(path)?).map_err(invalid)?;
            builder = builder.tls_certs_only(bundle);
        }
        if let Some(path) = &self.config.vault_client_certificate_file {
            builder = builder.identity(reqwest::Identity::from_pem(&read(path)?).map_err(invalid)?);
        }
        builder.build().map_err(invalid)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.config.vault_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path.split('/'));
        }
        url
    }

    async fn health(&self, client: &reqwest::Client) -> Vec<Finding> {
        let mut url = self.url("sys/health");
        url.set_query(Some("standbyok=true&perfstandbyok=true"));
        let answer = match send(client.get(url)).await {
            Ok(answer) => answer,
            Err(error) => {
                return vec![Finding::failed(
                    format!("it cannot be reached: {error}"),
                    "see whether it runs, and that firewall and TLS let the tool services reach \
                     it (--vault-ca-file names the authority of its certificate)",
                )];
            }
        };
        let health = answer.json().unwrap_or_default();
        let clock = health["server_time_utc"].as_u64();
        let clock = clock.and_then(|time| compare_time(UNIX_EPOCH + Duration::from_secs(time)));
        let state = match answer.status.as_u16() {
            200..=299 => {
                let version = health["version"].as_str().unwrap_or("unknown");
                Finding::ok(format!("version {version}, unsealed"))
            }
            501 => {
                Finding::failed("it is not initialized", "initialize it (`vault operator init`)")
            }
            503 => Finding::failed("it is sealed", "unseal it (`vault operator unseal`)"),
            status => Finding::failed(
                format!("its health is answered {status}"),
                "see that the URL is Vault's API, without a path",
            ),
        };
        std::iter::once(state).chain(clock).collect()
    }

    /// Tries to log in with a token that is not valid: the error shows whether mount and role
    /// exist.
    async fn role(&self, client: &reqwest::Client, service: &str) -> Finding {
        let mount = &self.config.vault_auth_mount;
        let body = json!({ "role": service, "jwt": "e30.e30.e30" });
        let mut request = client.post(self.url(&format!("auth/{mount}/login"))).json(&body);
        if let Some(namespace) = &self.config.vault_namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        match send(request.header("x-vault-request", "true")).await {
            Ok(answer) => judge_login(&answer, mount, service),
            Err(error) => Finding::failed(
                format!("the login of {service} has no answer: {error}"),
                "see Vault's log",
            ),
        }
    }
}

fn judge_login(answer: &Answer, mount: &str, service: &str) -> Finding {
    const BOOTSTRAP: &str = "run `drawbridge vault bootstrap` (docs/how-to/vault.md)";
    let errors = answer.json().unwrap_or_default();
    let errors = errors["errors"].as_array().cloned().unwrap_or_default();
    let errors: Vec<_> = errors.iter().filter_map(Value::as_str).collect();
    let errors = errors.join("; ");
    let has = |text: &str| errors.contains(text);
    if answer.status == StatusCode::NOT_FOUND || has("no handler for route") {
        return Finding::failed(format!("it has no auth method at {mount}"), BOOTSTRAP);
    }
    // An existing mount answers 403 too, where its listener needs a namespace.
    if has("permission denied") && !has("token") {
        return Finding::failed(
            format!("it has no auth method at {mount}, or forbids it"),
            BOOTSTRAP,
        );
    }
    if has("role") {
        return Finding::failed(format!("{mount} has no role {service}"), BOOTSTRAP);
    }
    if has("fetching keys") || has("JWKS") || has("jwks") || has("connection") {
        return Finding::failed(
            format!("it cannot fetch auth's keys: {errors}"),
            "correct jwks_url in the setup so that Vault reaches auth, and run `drawbridge vault \
             bootstrap`",
        );
    }
    Finding::ok(format!("{mount} has the role {service}"))
}
