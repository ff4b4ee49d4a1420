use std::{fs, net::Ipv4Addr, path::Path, path::PathBuf, process::Command};

use reqwest::{Client, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::{
    BackingError,
    server::{Server, prepare},
};

const PROGRAM: &str = "vault";
/// Audit devices may be made by API here, as HashiCorp's Vault lets one do.
const CONFIG: &str = "unsafe_allow_api_audit_creation = true\n";

/// A Vault in development mode, which keeps all in memory.
#[derive(Debug)]
pub struct Vault {
    /// The process.
    pub server: Server,
    /// Where its API is.
    pub url: Url,
    /// The token that may do anything.
    pub root_token: SecretString,
}

impl Vault {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn start(program: &Path) -> Result<Self, BackingError> {
        let (folder, port) = prepare(PROGRAM)?;
        let config = folder.path().join("config.hcl");
        fs::write(&config, CONFIG).map_err(|source| BackingError::Prepare { program: PROGRAM, source })?;
        let address = format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let root_token = Uuid::new_v4().to_string();
        let mut command = Command::new(program);
        command.args(["server", "-dev", "-dev-no-store-token", "-dev-listen-address", &address, "-config"]);
        // Where the list of processes does not show it.
        command
            .arg(&config)
            .env("VAULT_DEV_ROOT_TOKEN_ID", &root_token)
            .env("BAO_DEV_ROOT_TOKEN_ID", &root_token);
        command.env("HOME", folder.path());
        let mut server = Server::run(PROGRAM, command, folder, "")?;
        let url = format!("http://{address}");
        let (http, root_token) = (Client::new(), SecretString::from(root_token));
        // In development mode there is a key-value store already, where the set-up makes its own.
        let unmounted = || {
            let request = http.request(Method::DELETE, format!("{url}/v1/sys/mounts/secret"));
            let request = request.header("x-vault-token", root_token.expose_secret()).json(&json!({}));
            async { request.send().await.is_ok_and(|answer| answer.status().is_success()) }
        };
        server.until(unmounted).await?;
        let url = url.parse().map_err(|_| BackingError::Silent { program: PROGRAM, says: String::new() })?;
        Ok(Self { server, url, root_token })
    }

    /// Where its audit device writes.
    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        self.server.folder().join("audit.log")
    }
}
