//! Which mesh a command is about.

use anyhow::{Context as _, bail};

use super::{KnownMesh, MeshName, MeshState};

/// Which running mesh.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MeshArgs {
    /// The mesh that `drawbridge up` runs: by its --name, or by the port of its edge. Absent: the
    /// only one.
    #[arg(long, env = "DRAWBRIDGE_MESH", value_name = "NAME")]
    mesh: Option<MeshName>,
}

/// What is known of a mesh of this machine.
#[derive(Debug)]
pub enum Found {
    /// It runs.
    RunningService(Box<MeshState>),
    /// There is none, for this reason: what to do about it.
    None(String),
}

impl MeshArgs {
    /// The state of the mesh that is meant.
    ///
    /// # Errors
    /// When the state cannot be read, or no mesh of the given name runs.
    pub fn find(&self) -> anyhow::Result<Found> {
        let folder = MeshState::folder();
        let meshes =
            MeshState::all(&folder).context("cannot read the state of the running mesh")?;
        match &self.mesh {
            Some(name) => named(meshes, name),
            None => Ok(only(meshes)),
        }
    }
}

impl Found {
    /// The state of the mesh, if one runs.
    #[must_use]
    pub fn state(&self) -> Option<&MeshState> {
        match self {
            Self::RunningService(state) => Some(state),
            Self::None(_) => None,
        }
    }

    /// What to do so that a mesh is known.
    #[must_use]
    pub fn advice(&self) -> &str {
        match self {
            Self::RunningService(_) => "start another mesh",
            Self::None(advice) => advice,
        }
    }
}

fn named(meshes: Vec<KnownMesh>, name: &MeshName) -> anyhow::Result<Found> {
    let names = names(&meshes);
    match meshes.into_iter().find(|mesh| mesh.state.name == *name) {
        Some(mesh) if mesh.runs => Ok(Found::RunningService(Box::new(mesh.state))),
        Some(stale) => {
            bail!("the mesh {name} of pid {} does not run; {START} --name {name}`", stale.state.pid)
        }
        None if names.is_empty() => bail!("no mesh runs; {START} --name {name}`"),
        None => bail!("no mesh {name} runs; those that run: {}", names.join(", ")),
    }
}

const START: &str = "start one with `drawbridge up";

fn only(meshes: Vec<KnownMesh>) -> Found {
    let names = names(&meshes);
    let (running, stale): (Vec<_>, Vec<_>) = meshes.into_iter().partition(|mesh| mesh.runs);
    let mut running = running.into_iter();
    match (running.next(), running.next(), stale.first()) {
        (Some(mesh), None, _) => Found::RunningService(Box::new(mesh.state)),
        (Some(_), Some(_), _) => {
            Found::None(format!("several meshes run ({}): name one with --mesh", names.join(", ")))
        }
        (None, _, Some(stale)) => {
            Found::None(format!("the mesh of pid {} does not run; {START}`", stale.state.pid))
        }
        (None, _, None) => Found::None("start a mesh".to_owned()),
    }
}

fn names(meshes: &[KnownMesh]) -> Vec<String> {
    meshes.iter().filter(|mesh| mesh.runs).map(|mesh| mesh.state.name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(name: &str, runs: bool) -> KnownMesh {
        let state = MeshState {
            name: name.parse().unwrap(),
            pid: 123,
            issuer: "http://127.0.0.1:7100".parse().unwrap(),
            auth_url: "http://127.0.0.1:7110".parse().unwrap(),
            internal_audience: "drawbridge-auth".to_owned(),
            services: std::collections::BTreeMap::new(),
            workload: None,
            mtls: None,
        };
        KnownMesh { state, runs }
    }

    #[test]
    fn the_only_mesh_that_runs_is_meant_and_else_one_must_be_named() {
        let found = |meshes| only(meshes).state().map(|state| state.name.to_string());
        assert_eq!(found(vec![mesh("7180", true), mesh("old", false)]).as_deref(), Some("7180"));
        let advice = |meshes| only(meshes).advice().to_owned();
        assert_eq!(advice(Vec::new()), "start a mesh");
        assert_eq!(
            advice(vec![mesh("7180", false)]),
            "the mesh of pid 123 does not run; start one with `drawbridge up`"
        );
        assert_eq!(
            advice(vec![mesh("7180", true), mesh("b", true), mesh("c", false)]),
            "several meshes run (7180, b): name one with --mesh"
        );
    }

    #[test]
    fn a_mesh_that_is_named_runs_or_it_is_an_error() {
        let check = |name: &str, expected: &str| {
            let found = named(vec![mesh("7180", true), mesh("old", false)], &name.parse().unwrap());
            assert_eq!(found.unwrap_err().to_string(), expected);
        };
        check("other", "no mesh other runs; those that run: 7180");
        check(
            "old",
            "the mesh old of pid 123 does not run; start one with `drawbridge up --name old`",
        );
        let found =
            named(vec![mesh("7180", true), mesh("b", true)], &"b".parse().unwrap()).unwrap();
        assert_eq!(found.state().map(|state| state.name.to_string()).as_deref(), Some("b"));
    }

    #[test]
    fn a_name_is_part_of_a_file_name_and_nothing_more() {
        for name in ["7180", "a", "My-mesh_2"] {
            assert!(name.parse::<MeshName>().is_ok(), "{name}");
        }
        for name in ["", "-a", "a/b", "..", "a b", "ä", &"x".repeat(65)] {
            assert!(name.parse::<MeshName>().is_err(), "{name}");
        }
    }
}
