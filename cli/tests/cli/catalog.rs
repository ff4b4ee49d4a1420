//! `drawbridge catalog`, in temporary folders.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{REPOSITORY, drawbridge, text};

fn lock(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let mut command = drawbridge(folder);
    let result = command.current_dir(folder).args(["catalog", "lock"]).args(arguments).output();
    let result = result.expect("the binary");
    let output = format!("{}{}", text(&result.stdout), text(&result.stderr));
    assert_eq!(result.status.code(), Some(code), "{arguments:?}: {output}");
    assert!(!output.contains('\x1b'), "there is no terminal: {output:?}");
    output
}

#[test]
fn the_checked_in_lock_is_up_to_date() {
    let output = lock(Path::new(REPOSITORY), 0, &["--check"]);
    assert!(output.ends_with("policies/catalog.lock is up to date\n"), "{output}");
}

#[test]
fn lock_writes_what_clients_see_and_check_shows_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (folder, file) = (folder.path(), folder.path().join("policies/catalog.lock"));
    assert!(lock(folder, 1, &["--check"]).contains("tool code_search is new"));
    assert!(!file.exists(), "a check writes nothing");
    assert!(lock(folder, 0, &[]).ends_with("policies/catalog.lock now locks what is offered\n"));
    assert_eq!(lock(folder, 0, &["--check"]), "policies/catalog.lock is up to date\n");
    let lock_text = fs::read_to_string(&file).expect("the lock");
    assert_eq!(
        lock_text,
        fs::read_to_string(Path::new(REPOSITORY).join("policies/catalog.lock")).expect("a lock")
    );

    // The lock has another entry for the tool.
    let mut other: Value = serde_json::from_str(&lock_text).expect("JSON");
    let tools = other["tools"].as_object_mut().expect("tools");
    let listing = tools["code_list_files"].clone();
    tools.insert("code_search".to_owned(), listing).expect("the tool");
    fs::write(&file, other.to_string()).expect("a file");
    let output = lock(folder, 1, &["--check"]);
    assert!(
        output.starts_with(
            "policies/catalog.lock: 0 new, 1 changed, 0 gone\ntool code_search is changed\n@@"
        ),
        "{output}"
    );
    assert!(
        output.contains("-    \"name\": \"code_list_files\"")
            && output.contains("+    \"name\": \"code_search\""),
        "{output}"
    );
    let report: Value =
        serde_json::from_str(&lock(folder, 1, &["--check", "--json"])).expect("JSON");
    assert_eq!(
        (&report["current"], &report["differences"][0]["name"]),
        (&false.into(), &"code_search".into())
    );
    assert_eq!(report["differences"].as_array().map(Vec::len), Some(1));

    // A hand-edited lock is invalid, and is rewritten.
    fs::write(&file, lock_text.replacen("Searches", "Finds", 1)).expect("a file");
    assert!(lock(folder, 2, &["--check"]).contains("does not match its sha256"));
    assert!(lock(folder, 0, &[]).contains("the lock will be rewritten"));
    assert_eq!(fs::read_to_string(&file).expect("the lock"), lock_text);
}

#[test]
fn the_edges_config_file_may_name_the_services_and_the_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("code.binpb"), drawbridge_proto::FILE_DESCRIPTOR_SET).expect("a file");
    let config = "[catalog]\nlock = \"shown.lock\"\n[[services]]\nnamespace = \"code\"\nurls = \
        [\"http://127.0.0.1:1\"]\n";
    fs::write(folder.join("edge.toml"), format!("{config}descriptor_set = \"code.binpb\"\n"))
        .expect("a file");
    lock(folder, 0, &["--config", "edge.toml"]);
    let locked: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("shown.lock")).expect("the lock"))
            .expect("JSON");
    let tools: Vec<_> =
        locked["tools"].as_object().into_iter().flat_map(|tools| tools.keys()).collect();
    assert_eq!(tools, ["code_list_files", "code_search"]);
    // Without --config: every service in the descriptor set.
    lock(folder, 0, &["--descriptor-set", "code.binpb", "--file", "all.lock"]);
    assert!(
        fs::read_to_string(folder.join("all.lock")).expect("the lock").contains("tickets_search")
    );

    fs::write(folder.join("edge.toml"), config).expect("a file");
    let output = lock(folder, 2, &["--config", "edge.toml"]);
    assert!(output.contains("cannot read the contract of the service code"), "{output}");
    fs::write(folder.join("edge.toml"), "[catalog]\nmode = \"warn\"\n").expect("a file");
    assert!(lock(folder, 2, &["--config", "edge.toml"]).contains("missing field `lock`"));
}

/// Regression: `catalog lock --config` with a file without services emptied the lock and reported
/// success.
#[test]
fn items_are_removed_from_the_lock_only_with_remove() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("all.binpb"), drawbridge_proto::FILE_DESCRIPTOR_SET).expect("a file");
    lock(folder, 0, &["--file", "catalog.lock"]);
    let before = fs::read_to_string(folder.join("catalog.lock")).expect("the lock");
    let lock_text = || fs::read_to_string(folder.join("catalog.lock")).expect("the lock");

    fs::write(folder.join("edge.toml"), "[catalog]\nlock = \"catalog.lock\"\n").expect("a file");
    for arguments in [&["--config", "edge.toml"][..], &["--config", "edge.toml", "--remove"]] {
        let output = lock(folder, 2, arguments);
        assert!(output.contains("nothing is offered, so there is nothing to lock"), "{output}");
        assert_eq!(lock_text(), before);
    }

    let code = "[[services]]\nnamespace = \"code\"\nurls = [\"http://127.0.0.1:1\"]\n";
    let config =
        format!("[catalog]\nlock = \"catalog.lock\"\n{code}descriptor_set = \"all.binpb\"\n");
    fs::write(folder.join("edge.toml"), config).expect("a file");
    let output = lock(folder, 2, &["--config", "edge.toml"]);
    assert!(
        output.contains("0 new, 0 changed, ") && output.contains("tool tickets_search"),
        "{output}"
    );
    assert!(output.contains("use `--remove` to remove them from the lock"), "{output}");
    assert_eq!(lock_text(), before);
    let output = lock(folder, 0, &["--config", "edge.toml", "--remove"]);
    assert!(output.starts_with("catalog.lock: 0 new, 0 changed, "), "{output}");
    assert!(!lock_text().contains("tickets_search") && lock_text().contains("code_search"));
}
