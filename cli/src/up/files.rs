//! The files that `up` uses: those that its options name, those of a folder that `drawbridge init`
//! filled, or the demo's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use drawbridge_mesh::dependencies::RunFolder;

use super::UpArgs;
use crate::demo;

const POLICIES: &str = "policies";
const CONFIG: &str = "edge.toml";
const USERS: &str = "users.toml";

/// The files of a mesh.
pub(super) struct Files {
    pub(super) policies: PathBuf,
    /// The edge's config file.
    pub(super) config: Option<PathBuf>,
    /// The users of the built-in authorization server. Absent: the demo's.
    pub(super) users: Option<PathBuf>,
    /// Holds the demo's policies until the mesh has stopped.
    demo: Option<RunFolder>,
}

impl Files {
    /// Finds the files. An option wins over a file of the working directory.
    ///
    /// # Errors
    /// When the policy folder that an option names is missing, or the demo's policies cannot be
    /// written.
    pub(super) fn find(args: &UpArgs) -> anyhow::Result<Self> {
        let here = |name: &str| Some(PathBuf::from(name)).filter(|path| path.exists());
        let (policies, demo) = match args.policies.clone().or_else(|| here(POLICIES)) {
            Some(folder) => {
                ensure!(
                    folder.is_dir(),
                    "no policy folder {}; `drawbridge init` makes one",
                    folder.display()
                );
                (folder, None)
            }
            None => {
                let folder = RunFolder::new().context("cannot create a folder for the policies")?;
                let policies = folder.path().join(POLICIES);
                demo::write_policies(&policies).context("cannot write the demo's policies")?;
                (policies, Some(folder))
            }
        };
        let users = || here(USERS).filter(|_| args.issuer.is_none());
        Ok(Self {
            policies,
            config: args.config.clone().or_else(|| here(CONFIG)),
            users: args.users.clone().or_else(users),
            demo,
        })
    }

    /// Where the policies are, for people.
    pub(super) fn describe_policies(&self) -> String {
        let folder = self.policies.display();
        match &self.demo {
            None => folder.to_string(),
            Some(_) => format!("the demo's, in {folder}; `drawbridge init` makes your own"),
        }
    }

    /// The edge's config file, for people.
    pub(super) fn describe_config(&self) -> String {
        let path = self.config.as_deref().map(Path::display);
        path.map_or_else(|| "none; defaults apply".to_owned(), |path| path.to_string())
    }
}
