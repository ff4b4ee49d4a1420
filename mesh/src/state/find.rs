//! Selects the mesh that a command uses.

use anyhow::{Context as _, bail};

use super::{KnownMesh, MeshName, MeshState};

/// The option that selects a running mesh.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MeshArgs {
    /// The running mesh to use: its --name, or the port of its edge. Absent: the only running one.
    #[arg(long, env = "DRAWBRIDGE_MESH", value_name = "NAME")]
    mesh: Option<MeshName>,
}

/// The outcome of looking for a running mesh.
#[derive(Debug)]
pub enum MeshLookup {
    /// A mesh is running.
    Running(Box<MeshState>),
    /// No mesh was selected. The text advises what to do.
    None(String),
}

impl MeshArgs {
    /// Finds the selected mesh.
    ///
    /// # Errors
    /// When a state file cannot be read, or no mesh of the given name is running.
    pub fn find(&self) -> anyhow::Result<MeshLookup> {
        let folder = MeshState::folder();
        let meshes =
            MeshState::all(&folder).context("cannot read the state of the running mesh")?;
        match &self.mesh {
            Some(name) => find_named(meshes, name),
            None => Ok(find_only(meshes)),
        }
    }
}

impl MeshLookup {
    /// The state of the running mesh, if any.
    #[must_use]
    pub fn state(&self) -> Option<&MeshState> {
        match self {
            Self::Running(state) => Some(state),
            Self::None(_) => None,
        }
    }

    /// What to do so that a mesh is found.
    #[must_use]
    pub fn advice(&self) -> &str {
        match self {
            Self::Running(_) => "start another mesh",
            Self::None(advice) => advice,
        }
    }
}

fn find_named(meshes: Vec<KnownMesh>, name: &MeshName) -> anyhow::Result<MeshLookup> {
    let running_names = running_names(&meshes);
    match meshes.into_iter().find(|mesh| mesh.state.name == *name) {
        Some(mesh) if mesh.is_running => Ok(MeshLookup::Running(Box::new(mesh.state))),
        Some(stale) => {
            bail!(
                "the mesh {name} (pid {}) is not running; {START} --name {name}`",
                stale.state.pid
            )
        }
        None if running_names.is_empty() => bail!("no mesh is running; {START} --name {name}`"),
        None => bail!("no mesh {name} is running; running meshes: {}", running_names.join(", ")),
    }
}

const START: &str = "start one with `drawbridge up";

fn find_only(meshes: Vec<KnownMesh>) -> MeshLookup {
    let running_names = running_names(&meshes);
    let (running, stale): (Vec<_>, Vec<_>) = meshes.into_iter().partition(|mesh| mesh.is_running);
    let mut running = running.into_iter();
    match (running.next(), running.next(), stale.first()) {
        (Some(mesh), None, _) => MeshLookup::Running(Box::new(mesh.state)),
        (Some(_), Some(_), _) => MeshLookup::None(format!(
            "several meshes are running ({}): select one with --mesh",
            running_names.join(", ")
        )),
        (None, _, Some(stale)) => MeshLookup::None(format!(
            "the mesh with pid {} is not running; {START}`",
            stale.state.pid
        )),
        (None, _, None) => MeshLookup::None("start a mesh".to_owned()),
    }
}

fn running_names(meshes: &[KnownMesh]) -> Vec<String> {
    meshes.iter().filter(|mesh| mesh.is_running).map(|mesh| mesh.state.name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(name: &str, is_running: bool) -> KnownMesh {
        let state = MeshState {
            name: name.parse().unwrap(),
            pid: 123,
            mcp_url: "http://127.0.0.1:7180/mcp".parse().unwrap(),
            issuer: "http://127.0.0.1:7100".parse().unwrap(),
            auth_url: "http://127.0.0.1:7110".parse().unwrap(),
            internal_audience: "drawbridge-auth".to_owned(),
            services: std::collections::BTreeMap::new(),
            workload: None,
            mtls: None,
            admin: std::collections::BTreeMap::new(),
            setup: crate::state::MeshSetup::default(),
            calls_socket: None,
        };
        KnownMesh { state, is_running }
    }

    #[test]
    fn the_only_running_mesh_is_the_default_and_otherwise_mesh_is_required() {
        let found = |meshes| find_only(meshes).state().map(|state| state.name.to_string());
        assert_eq!(found(vec![mesh("7180", true), mesh("old", false)]).as_deref(), Some("7180"));
        let advice = |meshes| find_only(meshes).advice().to_owned();
        assert_eq!(advice(Vec::new()), "start a mesh");
        assert_eq!(
            advice(vec![mesh("7180", false)]),
            "the mesh with pid 123 is not running; start one with `drawbridge up`"
        );
        assert_eq!(
            advice(vec![mesh("7180", true), mesh("b", true), mesh("c", false)]),
            "several meshes are running (7180, b): select one with --mesh"
        );
    }

    #[test]
    fn a_named_mesh_that_is_not_running_is_an_error() {
        let check = |name: &str, expected: &str| {
            let found =
                find_named(vec![mesh("7180", true), mesh("old", false)], &name.parse().unwrap());
            assert_eq!(found.unwrap_err().to_string(), expected);
        };
        check("other", "no mesh other is running; running meshes: 7180");
        check(
            "old",
            "the mesh old (pid 123) is not running; start one with `drawbridge up --name old`",
        );
        let found =
            find_named(vec![mesh("7180", true), mesh("b", true)], &"b".parse().unwrap()).unwrap();
        assert_eq!(found.state().map(|state| state.name.to_string()).as_deref(), Some("b"));
    }

    #[test]
    fn a_mesh_name_is_a_safe_part_of_a_file_name() {
        for name in ["7180", "a", "My-mesh_2"] {
            assert!(name.parse::<MeshName>().is_ok(), "{name}");
        }
        for name in ["", "-a", "a/b", "..", "a b", "ä", &"x".repeat(65)] {
            assert!(name.parse::<MeshName>().is_err(), "{name}");
        }
    }
}
