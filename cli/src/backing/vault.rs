use std::{fs, net::Ipv4Addr, path::Path, path::PathBuf, process::Command};

use reqwest::{Client, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    BackingError,
    server::{Server, free_port, prepare},
};

const PROGRAM: &str = "vault";

/// Where a Vault keeps what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In memory: at its end all is gone.
    Memory,
    /// In its folder: it can be started again.
    Disk,
}

/// A Vault.
#[derive(Debug)]
pub struct Vault {
    /// The process.
    pub server: Server,
    /// Where its API is.
    pub url: Url,
    /// The token that may do anything.
    pub root_token: SecretString,
    unseal_key: SecretString,
}

/// What a new Vault gives away once.
#[derive(Deserialize)]
struct Initialized {
    keys: Vec<SecretString>,
    root_token: SecretString,
}

impl Vault {
    /// Starts a new server, unseals it, and waits until it serves.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start(program: &Path, storage: Storage) -> Result<Self, BackingError> {
        let (folder, port) = prepare(PROGRAM)?;
        let data = folder.path().join("data");
        let config = folder.path().join("config.hcl");
        let write = || {
            fs::create_dir(&data)?;
            fs::write(&config, config_text(storage, &data, port, free_port()?))
        };
        write().map_err(|source| BackingError::Prepare { program: PROGRAM, source })?;
        let mut command = Command::new(program);
        command.arg("server").arg("-config").arg(&config).env("HOME", folder.path());
        let mut server = Server::run(PROGRAM, command, folder, "".into())?;
        let url = format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
        let url: Url = url.parse().map_err(|_| failed("its address is no URL"))?;

        server.until(|| answers(&url, "sys/init")).await?;
        let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let initialized = ask(&url, Method::PUT, "sys/init", &init).await?;
        let Initialized { mut keys, root_token } =
            serde_json::from_value(initialized).map_err(|_| failed("it tells no key"))?;
        let unseal_key = keys.pop().ok_or_else(|| failed("it tells no key"))?;
        let mut vault = Self { server, url, root_token, unseal_key };
        vault.unseal().await?;
        Ok(vault)
    }

    /// Runs it again after it has ended, with what its disk has kept, unseals it, and waits until it serves.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start_again(&mut self) -> Result<(), BackingError> {
        self.server.run_again()?;
        let url = self.url.clone();
        self.server.until(|| answers(&url, "sys/init")).await?;
        self.unseal().await
    }

    async fn unseal(&mut self) -> Result<(), BackingError> {
        let key = json!({ "key": self.unseal_key.expose_secret() });
        ask(&self.url, Method::PUT, "sys/unseal", &key).await?;
        let url = self.url.clone();
        self.server.until(|| answers(&url, "sys/health")).await
    }

    /// Where its audit device writes.
    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        self.server.folder().join("audit.log")
    }
}

fn config_text(storage: Storage, data: &Path, port: u16, cluster_port: u16) -> String {
    let (data, host) = (data.display(), Ipv4Addr::LOCALHOST);
    let storage = match storage {
        Storage::Memory => r#"storage "inmem" {}"#.to_owned(),
        // By itself it would wait five seconds for others that might lead.
        Storage::Disk => format!(
            r#"storage "raft" {{
  path                   = "{data}"
  node_id                = "drawbridge"
  performance_multiplier = 1
}}"#
        ),
    };
    // HashiCorp's Vault wants to hear of mlock. OpenBao has none, and takes audit devices by API only if told to.
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

async fn answers(url: &Url, path: &str) -> bool {
    reqwest::get(format!("{url}v1/{path}")).await.is_ok_and(|answer| answer.status().is_success())
}

async fn ask(url: &Url, method: Method, path: &str, body: &Value) -> Result<Value, BackingError> {
    let request = Client::new().request(method, format!("{url}v1/{path}")).json(body);
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    let answer = answer.map_err(|error| failed(&error.to_string()))?;
    answer.json().await.map_err(|error| failed(&error.to_string()))
}

fn failed(says: &str) -> BackingError {
    BackingError::Silent { program: PROGRAM, says: says.to_owned() }
}
