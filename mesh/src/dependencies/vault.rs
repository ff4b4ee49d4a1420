use std::{fs, net::Ipv4Addr, path::Path, path::PathBuf, process::Command};

use reqwest::{Client, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    DependencyError,
    server::{ReservedPort, Server, prepare},
};

const PROGRAM: &str = "vault";

/// Where a Vault stores its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In memory, lost when it exits.
    Memory,
    /// In its run folder, so that it can be restarted.
    Disk,
}

/// A Vault server.
#[derive(Debug)]
pub struct Vault {
    /// The process.
    pub server: Server,
    /// The URL of its API.
    pub url: Url,
    /// The root token.
    pub root_token: SecretString,
    unseal_key: SecretString,
}

/// The response to `sys/init`, which Vault gives only once.
#[derive(Deserialize)]
struct InitResponse {
    keys: Vec<SecretString>,
    root_token: SecretString,
}

impl Vault {
    /// Starts a new server, unseals it, and waits until it serves.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start(program: &Path, storage: Storage) -> Result<Self, DependencyError> {
        let prepare_failed = |source| DependencyError::Prepare { program: PROGRAM, source };
        let (folder, reserved) = prepare(PROGRAM)?;
        let reserved_for_cluster = ReservedPort::new().map_err(prepare_failed)?;
        let (port, cluster_port) = (reserved.number, reserved_for_cluster.number);
        let data = folder.path().join("data");
        let config = folder.path().join("config.hcl");
        let write = || {
            fs::create_dir(&data)?;
            fs::write(&config, config_text(storage, &data, port, cluster_port))
        };
        write().map_err(prepare_failed)?;
        let mut command = Command::new(program);
        command.arg("server").arg("-config").arg(&config).env("HOME", folder.path());
        let ports = vec![reserved, reserved_for_cluster];
        let mut server = Server::run(PROGRAM, command, folder, ports, "".into())?;
        let url = format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
        let url: Url = url.parse().map_err(|_| failed("its address is not a valid URL"))?;

        server.wait_until(|| responds(&url, "sys/init")).await?;
        let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let initialized = send(&url, Method::PUT, "sys/init", &init).await?;
        let InitResponse { mut keys, root_token } = serde_json::from_value(initialized)
            .map_err(|_| failed("the response to sys/init has no unseal key"))?;
        let unseal_key =
            keys.pop().ok_or_else(|| failed("the response to sys/init has no unseal key"))?;
        let mut vault = Self { server, url, root_token, unseal_key };
        vault.unseal().await?;
        Ok(vault)
    }

    /// Restarts it after it has exited, with the data on its disk, unseals it, and waits until it
    /// serves.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn restart(&mut self) -> Result<(), DependencyError> {
        self.server.restart()?;
        let url = self.url.clone();
        self.server.wait_until(|| responds(&url, "sys/init")).await?;
        self.unseal().await
    }

    async fn unseal(&mut self) -> Result<(), DependencyError> {
        let key = json!({ "key": self.unseal_key.expose_secret() });
        send(&self.url, Method::PUT, "sys/unseal", &key).await?;
        let url = self.url.clone();
        self.server.wait_until(|| responds(&url, "sys/health")).await
    }

    /// The file that its audit device writes.
    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        self.server.folder().join("audit.log")
    }
}

fn config_text(storage: Storage, data: &Path, port: u16, cluster_port: u16) -> String {
    let (data, host) = (data.display(), Ipv4Addr::LOCALHOST);
    let storage = match storage {
        Storage::Memory => r#"storage "inmem" {}"#.to_owned(),
        // By default it waits five seconds for other leader candidates.
        Storage::Disk => format!(
            r#"storage "raft" {{
  path                   = "{data}"
  node_id                = "drawbridge"
  performance_multiplier = 1
}}"#
        ),
    };
    // HashiCorp's Vault requires an mlock setting. OpenBao has no mlock, and creates audit devices
    // by API only if allowed.
    format!(
        r#"{storage}
listener "tcp" {{
  address     = "{host}:{port}"
  tls_disable = true
}}
api_addr      = "http://{host}:{port}"
cluster_addr  = "http://{host}:{cluster_port}"
disable_mlock = true
unsafe_allow_api_audit_creation = true
"#
    )
}

async fn responds(url: &Url, path: &str) -> bool {
    reqwest::get(format!("{url}v1/{path}"))
        .await
        .is_ok_and(|response| response.status().is_success())
}

async fn send(
    url: &Url,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Value, DependencyError> {
    let request = Client::new().request(method, format!("{url}v1/{path}")).json(body);
    let response = request.send().await.and_then(reqwest::Response::error_for_status);
    let response = response.map_err(|error| failed(&error.to_string()))?;
    response.json().await.map_err(|error| failed(&error.to_string()))
}

fn failed(reason: &str) -> DependencyError {
    DependencyError::NotServing { program: PROGRAM, output: reason.to_owned() }
}
