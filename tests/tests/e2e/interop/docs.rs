//! The documentation's examples work in a checkout.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use drawbridge_config::{ConfigText, setup};
use drawbridge_edge::Trial;
use drawbridge_mesh::HostedService;
use drawbridge_runtime::{TelemetryConfig, error_chain};
use drawbridge_tests::{TestMesh, repository};

/// The kinds of configuration files, each with its own parser.
const KINDS: [&str; 4] = ["edge config", "issuers", "users", "setup of Vault"];

/// A TOML example.
struct Example {
    location: String,
    text: String,
}

/// All TOML examples of the documentation, except those with `not-loaded` in their fence.
fn examples() -> Vec<Example> {
    let mut pages = vec![repository().join("README.md")];
    let mut folders = vec![repository().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.iter().flat_map(|page| examples_of(page)).collect()
}

fn examples_of(page: &Path) -> Vec<Example> {
    let text = fs::read_to_string(page).expect("a page");
    let name = page.file_name().unwrap_or_default().to_string_lossy();
    let (mut examples, mut lines) = (Vec::new(), text.lines().enumerate());
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```toml") else { continue };
        let block = lines.by_ref().map(|(_, line)| line.trim_start());
        let text: String =
            block.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        if !info.contains("not-loaded") {
            examples.push(Example { location: format!("{name}:{}", number + 1), text });
        }
    }
    examples
}

/// A folder with the files that examples refer to.
struct ExampleFolder(tempfile::TempDir);

impl ExampleFolder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::copy(repository().join("policies/catalog.lock"), folder.path().join("catalog.lock"))
            .expect("a lock");
        for (name, text) in [("introspection.secret", "secret"), ("keys.json", r#"{"keys":[]}"#)] {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        Self(folder)
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.0.path().join("example.toml");
        fs::write(&file, text).expect("a file");
        file
    }
}

/// Starts an edge with this config file and these services as flags.
async fn edge(mesh: &TestMesh, file: &Path, services: &[String]) -> Result<(), String> {
    let state = &mesh.mesh.state;
    let services = services.iter().map(|service| service.parse());
    let config = drawbridge_edge::Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        admin_listen: "127.0.0.1:0".parse().expect("an address"),
        services: services.collect::<Result<_, _>>().expect("services"),
        config: Some(file.to_owned()),
        mtls: mesh.mtls("edge"),
        ..drawbridge_edge::Config::new(
            mesh.mesh.mcp_url.clone(),
            state.issuer_name().to_owned(),
            state.auth_url.clone(),
        )
    };
    let telemetry = TelemetryConfig { log: "off".to_owned(), ..TelemetryConfig::default() };
    let hosted = HostedService::start("edge", &telemetry, |telemetry| async move {
        drawbridge_edge::start(config, &telemetry).await
    });
    let hosted = hosted.await.map_err(|error| error_chain(&error))?;
    hosted.stop().await;
    Ok(())
}

/// The error of each parser, by kind; none if it accepts the file.
async fn parse_errors(mesh: &TestMesh, file: &Path) -> BTreeMap<&'static str, Option<String>> {
    let text = fs::read_to_string(file).expect("a file");
    let auth = mesh.auth(|config| (config.issuer, config.issuers) = (None, Some(file.to_owned())));
    let issuers = match auth.try_start().await {
        Ok(auth) => {
            auth.stop().await;
            None
        }
        Err(error) => Some(error),
    };
    // The services come either from the file or from flags.
    let mut edge = self::edge(mesh, file, &[]).await.err();
    if edge.is_some() {
        let services = mesh.mesh.state.services.iter();
        let flags: Vec<_> = services.map(|(name, url)| format!("{name}={url}")).collect();
        edge = self::edge(mesh, file, &flags).await.err();
    }
    let errors = [
        edge,
        issuers,
        drawbridge_idp::tenants(Some(file)).err().map(|error| error.to_string()),
        setup::read(&ConfigText::new(file, text)).err().map(|error| error.to_string()),
    ];
    KINDS.into_iter().zip(errors).collect()
}

#[tokio::test]
async fn every_toml_example_is_accepted_by_exactly_one_parser() {
    let (mesh, folder) = (TestMesh::start().await, ExampleFolder::new());
    let (mut accepted, mut problems) = (BTreeMap::<_, usize>::new(), Vec::new());
    for Example { location, text } in examples() {
        let errors = parse_errors(&mesh, &folder.write(&text)).await;
        let parsers: Vec<_> = KINDS.into_iter().filter(|kind| errors[kind].is_none()).collect();
        match parsers.as_slice() {
            [kind] => *accepted.entry(*kind).or_default() += 1,
            _ => problems.push(format!("{location}: accepted by {parsers:?}\n{text}\n{errors:#?}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(accepted["edge config"] >= 10 && accepted["issuers"] >= 6, "{accepted:?}");
    assert!(accepted.contains_key("users"), "{accepted:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn every_shipped_toml_file_is_accepted_by_exactly_its_own_parser() {
    let mesh = TestMesh::start().await;
    for (file, kind) in [
        ("deploy/keycloak/issuers.toml", "issuers"),
        ("deploy/vault/setup.toml", "setup of Vault"),
        ("services/idp/users.toml", "users"),
        ("tests/uncached.toml", "edge config"),
    ] {
        let errors = parse_errors(&mesh, &repository().join(file)).await;
        for (other, error) in errors {
            assert_eq!(error.is_none(), other == kind, "{file} as {other}: {error:?}");
        }
    }
    mesh.stop().await;
}

/// The tables of the edge's config file, as its parser lists them.
fn tables() -> Vec<String> {
    let folder = ExampleFolder::new();
    let error =
        Trial::open(&folder.write("nonsense = 1\n")).expect_err("an unknown field").to_string();
    let (_, expected) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_table_of_the_edges_config_file_has_an_example_in_its_documentation() {
    let page = examples_of(&repository().join("docs/reference/edge-config.md"));
    let tables = tables();
    assert!(tables.len() >= 9, "{tables:?}");
    for table in tables {
        let prefixes = [
            format!("[{table}]"),
            format!("[[{table}]]"),
            format!("[{table}."),
            format!("{table} = "),
        ];
        let is_table = |line: &str| prefixes.iter().any(|prefix| line.starts_with(prefix));
        assert!(
            page.iter().any(|example| example.text.lines().any(is_table)),
            "docs/reference/edge-config.md has no [{table}]"
        );
    }
}
