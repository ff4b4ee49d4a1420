use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use drawbridge_cli::mesh::{Mesh, MeshConfig, Ports};
use drawbridge_sdk::{LogFormat, LogSink, TelemetryConfig};
use tempfile::TempDir;

use crate::{Client, repository, sign_in};

/// A whole mesh on free ports, with policies of its own to edit and a log to read.
#[derive(Debug)]
pub struct TestMesh {
    /// The mesh.
    pub mesh: Mesh,
    config: MeshConfig,
    log: Arc<Mutex<Vec<u8>>>,
    policies: TempDir,
}

impl TestMesh {
    /// Starts a mesh over this repository's policies and source tree.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a mesh that is set up otherwise.
    pub async fn with(change: impl FnOnce(&mut MeshConfig)) -> Self {
        let policies = tempfile::tempdir().expect("a folder");
        copy(&repository().join("policies"), policies.path());
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut config = MeshConfig {
            ports: Ports::Free,
            policies: policies.path().to_owned(),
            code_root: repository(),
            telemetry: TelemetryConfig {
                log_format: LogFormat::Json,
                log: "debug".to_owned(),
                log_sink: LogSink::Memory(Arc::clone(&log)),
                ..TelemetryConfig::default()
            },
            ..MeshConfig::default()
        };
        change(&mut config);
        let mesh = Mesh::start(&config).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        Self { mesh, config, log, policies }
    }

    /// Stops the mesh and starts it again, on other ports, with the policies as they are now.
    pub async fn restart(self) -> Self {
        let Self { mesh, config, log, policies } = self;
        mesh.stop().await;
        let mesh = Mesh::start(&config).await.expect("a mesh that starts again");
        Self { mesh, config, log, policies }
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.mesh.mcp_url.clone(), None)
    }

    /// A client with the token of a demo user, who signs in as people do.
    pub async fn client(&self, user: &str) -> Client {
        let token = sign_in(&self.mesh.state.issuer, self.mesh.mcp_url.as_str(), user, user).await;
        Client::new(self.mesh.mcp_url.clone(), Some(token))
    }

    /// A client with this token.
    pub fn client_with(&self, token: &str) -> Client {
        Client::new(self.mesh.mcp_url.clone(), Some(token.to_owned()))
    }

    /// Replaces a text in a policy file, which must hold it.
    pub fn edit_policy(&self, file: &str, from: &str, to: &str) {
        let path = self.policies.path().join(file);
        let text = fs::read_to_string(&path).expect("a policy file");
        assert!(text.contains(from), "{file} does not hold {from}");
        fs::write(path, text.replacen(from, to, 1)).expect("a policy file that can be written");
    }

    /// All that every service has logged so far.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Stops the mesh, and with that sends its last spans.
    pub async fn stop(self) {
        self.mesh.stop().await;
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir_all(&target).expect("a folder");
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file");
        }
    }
}
