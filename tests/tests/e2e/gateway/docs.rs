//! What docs/edge.md shows.

use std::fs;

use drawbridge_tests::{TestMesh, repository};

#[tokio::test]
async fn the_examples_of_the_documentation_are_loaded() {
    let page = fs::read_to_string(repository().join("docs/edge.md")).expect("a page");
    let examples: Vec<_> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    let mesh = TestMesh::start().await;
    let services: Vec<_> =
        mesh.mesh.state.services.iter().map(|(namespace, url)| (namespace.as_str(), url)).collect();
    for example in examples {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("edge.toml");
        fs::write(&file, example).expect("a file");
        let lock = repository().join("policies/catalog.lock");
        fs::copy(lock, folder.path().join("catalog.lock")).expect("a lock");
        // It does not start with one that is wrong.
        let edge = mesh.edge(&services, |config| config.config = Some(file.clone())).await;
        edge.hosted.stop().await;
    }
}
