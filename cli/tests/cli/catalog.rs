//! `drawbridge catalog`, in folders that a test makes.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{REPOSITORY, drawbridge, text};

fn lock(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let mut command = drawbridge(folder);
    let output = command.current_dir(folder).args(["catalog", "lock"]).args(arguments).output();
    let output = output.expect("the binary");
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(!said.contains('\x1b'), "there is no terminal: {said:?}");
    said
}

#[test]
fn the_checked_in_lock_is_what_is_offered() {
    let said = lock(Path::new(REPOSITORY), 0, &["--check"]);
    assert!(said.ends_with("policies/catalog.lock is what is offered\n"), "{said}");
}

#[test]
fn lock_writes_what_clients_see_and_check_shows_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (folder, file) = (folder.path(), folder.path().join("policies/catalog.lock"));
    assert!(lock(folder, 1, &["--check"]).contains("tool code_search is new"));
    assert!(!file.exists(), "a check writes nothing");
    assert!(lock(folder, 0, &[]).ends_with("policies/catalog.lock locks what is offered\n"));
    assert_eq!(lock(folder, 0, &["--check"]), "policies/catalog.lock is what is offered\n");
    let there = fs::read_to_string(&file).expect("the lock");
    assert_eq!(
        there,
        fs::read_to_string(Path::new(REPOSITORY).join("policies/catalog.lock")).expect("a lock")
    );

    // Somebody has locked something else.
    let mut other: Value = serde_json::from_str(&there).expect("JSON");
    let tools = other["tools"].as_object_mut().expect("tools");
    let listing = tools["code_list_files"].clone();
    tools.insert("code_search".to_owned(), listing).expect("the tool");
    fs::write(&file, other.to_string()).expect("a file");
    let said = lock(folder, 1, &["--check"]);
    assert!(
        said.starts_with(
            "policies/catalog.lock: 0 new, 1 changed, 0 gone\ntool code_search is changed\n@@"
        ),
        "{said}"
    );
    assert!(
        said.contains("-    \"name\": \"code_list_files\"")
            && said.contains("+    \"name\": \"code_search\""),
        "{said}"
    );
    let report: Value =
        serde_json::from_str(&lock(folder, 1, &["--check", "--json"])).expect("JSON");
    assert_eq!(
        (&report["current"], &report["differences"][0]["name"]),
        (&false.into(), &"code_search".into())
    );
    assert_eq!(report["differences"].as_array().map(Vec::len), Some(1));

    // One that was edited by hand is no lock, and is written anew.
    fs::write(&file, there.replacen("Searches", "Finds", 1)).expect("a file");
    assert!(lock(folder, 2, &["--check"]).contains("is not what its sha256 is of"));
    assert!(lock(folder, 0, &[]).contains("it is written anew"));
    assert_eq!(fs::read_to_string(&file).expect("the lock"), there);
}

#[test]
fn the_services_and_the_place_of_the_lock_may_stand_in_the_edges_config_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("code.binpb"), drawbridge_proto::FILE_DESCRIPTOR_SET).expect("a file");
    let config = "[catalog]\nlock = \"shown.lock\"\n[[services]]\nnamespace = \"code\"\nurls = [\"http://127.0.0.1:1\"]\n";
    fs::write(folder.join("edge.toml"), format!("{config}descriptor_set = \"code.binpb\"\n"))
        .expect("a file");
    lock(folder, 0, &["--config", "edge.toml"]);
    let locked: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("shown.lock")).expect("the lock"))
            .expect("JSON");
    let tools: Vec<_> =
        locked["tools"].as_object().into_iter().flat_map(|tools| tools.keys()).collect();
    assert_eq!(tools, ["code_list_files", "code_search"]);
    // Without it, all that the file describes.
    lock(folder, 0, &["--descriptor-set", "code.binpb", "--file", "all.lock"]);
    assert!(
        fs::read_to_string(folder.join("all.lock")).expect("the lock").contains("tickets_search")
    );

    fs::write(folder.join("edge.toml"), config).expect("a file");
    let said = lock(folder, 2, &["--config", "edge.toml"]);
    assert!(said.contains("cannot read the contract of the service code"), "{said}");
    fs::write(folder.join("edge.toml"), "[catalog]\nmode = \"warn\"\n").expect("a file");
    assert!(lock(folder, 2, &["--config", "edge.toml"]).contains("missing field `lock`"));
}

/// `catalog lock --config` with a file that names no services emptied the lock, and said that all was well.
#[test]
fn a_lock_loses_nothing_unless_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("all.binpb"), drawbridge_proto::FILE_DESCRIPTOR_SET).expect("a file");
    lock(folder, 0, &["--file", "catalog.lock"]);
    let before = fs::read_to_string(folder.join("catalog.lock")).expect("the lock");
    let there = || fs::read_to_string(folder.join("catalog.lock")).expect("the lock");

    fs::write(folder.join("edge.toml"), "[catalog]\nlock = \"catalog.lock\"\n").expect("a file");
    for arguments in [&["--config", "edge.toml"][..], &["--config", "edge.toml", "--remove"]] {
        let said = lock(folder, 2, arguments);
        assert!(said.contains("nothing is offered, so there is nothing to lock"), "{said}");
        assert_eq!(there(), before);
    }

    let code = "[[services]]\nnamespace = \"code\"\nurls = [\"http://127.0.0.1:1\"]\n";
    let config =
        format!("[catalog]\nlock = \"catalog.lock\"\n{code}descriptor_set = \"all.binpb\"\n");
    fs::write(folder.join("edge.toml"), config).expect("a file");
    let said = lock(folder, 2, &["--config", "edge.toml"]);
    assert!(said.contains("0 new, 0 changed, ") && said.contains("tool tickets_search"), "{said}");
    assert!(said.contains("`--remove` takes that out of the lock"), "{said}");
    assert_eq!(there(), before);
    let said = lock(folder, 0, &["--config", "edge.toml", "--remove"]);
    assert!(said.starts_with("catalog.lock: 0 new, 0 changed, "), "{said}");
    assert!(!there().contains("tickets_search") && there().contains("code_search"));
}
