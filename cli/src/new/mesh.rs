//! The files of a mesh that name a new service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use drawbridge_config::ConfigText;
use drawbridge_edge::check_config;

use super::name::ServiceName;

const CONFIG: &str = "edge.toml";
const POLICIES: &str = "policies";

/// The files of the mesh in the working directory, with the service added.
pub(super) struct MeshFiles {
    /// The edge's config file.
    config: String,
    /// The file of the service's policy.
    policy: PathBuf,
}

impl MeshFiles {
    /// Adds a service on this port. Nothing is written yet.
    ///
    /// # Errors
    /// When there is no config file, it has mistakes or names the service already, or the policy
    /// exists.
    pub(super) fn with(name: &ServiceName, port: u16) -> anyhow::Result<Self> {
        if !Path::new(CONFIG).is_file() || !Path::new(POLICIES).is_dir() {
            bail!(
                "--offer needs {CONFIG} and {POLICIES}/ of a mesh in the working directory: run it \
                 where `drawbridge init` wrote them"
            );
        }
        let name = name.as_str();
        let before = ConfigText::read(Path::new(CONFIG))?;
        let config = format!(
            "{}\n[[services]]\nnamespace = \"{name}\"\nurls = [\"http://127.0.0.1:{port}\"]\n",
            before.as_str()
        );
        check_config(&ConfigText::new(CONFIG, config.clone()), &[])
            .with_context(|| format!("cannot add {name} to {CONFIG}"))?;
        let policy = Path::new(POLICIES).join(format!("{name}.cedar"));
        if policy.exists() {
            bail!("{} exists already", policy.display());
        }
        Ok(Self { config, policy })
    }

    /// Writes both files. The policy is the one in the service's folder.
    pub(super) fn write(&self, service: &Path) -> anyhow::Result<()> {
        let path = self.policy.display();
        fs::copy(service.join(&self.policy), &self.policy)
            .with_context(|| format!("cannot write {path}"))?;
        fs::write(CONFIG, &self.config).with_context(|| format!("cannot write {CONFIG}"))
    }

    pub(super) fn into_paths(self) -> Vec<PathBuf> {
        vec![CONFIG.into(), self.policy]
    }
}
