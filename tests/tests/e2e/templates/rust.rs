//! The Rust template and the service of docs/how-to/write-a-tool-service-in-rust.md, built as their
//! authors do, against the SDK of this checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use drawbridge_tests::repository;

use super::{NewService, check_rooms};

/// The target folder of these tests, which has most of the dependencies already: like them, nothing
/// here has debug information.
fn target() -> PathBuf {
    let test = env::current_exe().expect("this test's binary");
    test.ancestors().nth(3).expect("the target folder").to_owned()
}

/// Runs cargo with the versions of this repository, so that nothing is downloaded.
fn cargo(folder: &Path, arguments: &[&str]) {
    fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
    let output = Command::new("cargo")
        .args(arguments)
        .arg("--offline")
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target())
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_service_in_rust_builds_passes_its_tests_and_serves_ai_clients() {
    let service = NewService::write("rust");
    cargo(&service.folder(), &["test"]);
    cargo(&service.folder(), &["build"]);
    check_rooms(&service, || Command::new(target().join("debug/rooms"))).await;
}

/// The fenced blocks of the page that follow a line "In `path`:", with their paths.
fn files(page: &str) -> Vec<(String, String)> {
    let parts = page.split("\nIn `").skip(1);
    let file = |part: &str| {
        let (path, rest) = part.split_once("`:\n").filter(|(path, _)| !path.contains('\n'))?;
        let (_, block) = rest.split_once("```")?;
        let (_, block) = block.split_once('\n')?;
        Some((path.to_owned(), block.split_once("\n```")?.0.to_owned() + "\n"))
    };
    parts.filter_map(file).collect()
}

/// The names of the fields of the first row of `ToolService` in a text.
fn row_fields(text: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != "ToolService {");
    let row = lines.next().expect("a row");
    let indent = row.len() - row.trim_start().len();
    let field = |line: &str| {
        let at_field = line.len() - line.trim_start().len() == indent + 4;
        let (name, _) = line.trim().split_once(':').filter(|_| at_field)?;
        Some(name.to_owned())
    };
    lines.take_while(|line| line.trim() != "},").filter_map(field).collect()
}

#[test]
fn the_documented_service_of_this_repository_is_one_folder_that_builds_and_one_row() {
    let page = repository().join("docs/how-to/write-a-tool-service-in-rust.md");
    let page = fs::read_to_string(page).expect("a page");
    let (folder, files) = (tempfile::tempdir().expect("a folder"), files(&page));
    assert_eq!(files.len(), 5, "{files:?}");
    for (path, text) in files {
        assert!(path.starts_with("services/tools/lines/"), "{path} is in another folder");
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let sdk = repository().join("sdk").display().to_string();
    let workspace = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"services/tools/*\"]\n\
         [workspace.package]\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"deny\"\n\
         [workspace.dependencies]\ndrawbridge-sdk = {{ path = \"{sdk}\" }}\n\
         drawbridge-build = {{ path = \"{sdk}/build\" }}\n"
    );
    fs::write(folder.path().join("Cargo.toml"), workspace).expect("a file");
    cargo(folder.path(), &["build"]);

    let table = fs::read_to_string(repository().join("mesh/src/tools.rs")).expect("the table");
    let (_, table) = table.split_once("pub const TOOLS").expect("the table");
    assert_eq!(row_fields(&page), row_fields(table));
}
