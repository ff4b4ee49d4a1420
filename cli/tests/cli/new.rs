//! `drawbridge new service`.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::{drawbridge, text};

fn new_service(folder: &Path, arguments: &[&str]) -> Output {
    drawbridge(&folder.join("state"))
        .args(["new", "service"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the binary")
}

fn check_refused(arguments: &[&str], expected: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("used")).expect("a folder");
    fs::write(folder.path().join("used/file"), "").expect("a file");
    let refused = new_service(folder.path(), arguments);
    assert!(!refused.status.success(), "{arguments:?}");
    assert!(text(&refused.stderr).contains(expected), "{}", text(&refused.stderr));
    let left = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 1, "{arguments:?} wrote something");
}

#[test]
fn a_new_service_is_written_with_the_commands_that_build_and_offer_it() {
    for language in ["rust", "python", "go"] {
        let folder = tempfile::tempdir().expect("a folder");
        let made = new_service(folder.path(), &["meeting_rooms", "--lang", language, "--json"]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let report: Value = serde_json::from_str(text(&made.stdout)).expect("JSON");
        let service = folder.path().join("meeting_rooms");
        for name in report["files"].as_array().expect("a list") {
            let content = fs::read_to_string(service.join(name.as_str().expect("a name")));
            assert!(!content.expect("a file").contains("{{"), "{name}");
        }
        let proto = service.join("proto/meeting_rooms/v1/meeting_rooms.proto");
        let contract = fs::read_to_string(proto).expect("the contract");
        assert!(contract.contains("service MeetingRoomsService {"), "{contract}");
        assert!(contract.contains(r#"namespace: "meeting_rooms""#), "{contract}");
        let offer = report["offer"].as_array().expect("a list");
        assert_eq!(offer[0], "drawbridge up --service meeting_rooms=http://127.0.0.1:7450");
    }
}

#[test]
fn without_json_the_next_commands_are_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = new_service(folder.path(), &["rooms", "--lang", "python", "--port", "7460"]);
    let printed = text(&made.stdout);
    for expected in [
        "  cd rooms\n",
        "  .venv/bin/python -m rooms_service\n",
        "  drawbridge policy schema --service-url http://127.0.0.1:7460\n",
        "rooms/policies/rooms.cedar policies/\n",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}

#[test]
fn a_new_service_overwrites_nothing_and_needs_a_namespace_and_an_sdk() {
    check_refused(&["rooms", "--lang", "python", "--out", "used"], "used is not empty");
    check_refused(&["Rooms", "--lang", "python"], "beginning with a letter");
    check_refused(&["rooms", "--lang", "perl"], "invalid value 'perl'");
    let no_sdk = ["rooms", "--lang", "python", "--sdk", "used"];
    check_refused(&no_sdk, "used has no sdk/python/pyproject.toml");
}

#[test]
fn a_new_service_is_offered_in_the_mesh_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let offer = ["rooms", "--lang", "go", "--out", "../rooms", "--offer"];
    let mesh = folder.path().join("mesh");
    fs::create_dir(&mesh).expect("a folder");
    let refused = new_service(&mesh, &offer);
    assert!(text(&refused.stderr).contains("--offer needs edge.toml"), "{refused:?}");
    assert!(!folder.path().join("rooms").exists());

    let initialized = drawbridge(&mesh).arg("init").current_dir(&mesh).status();
    assert!(initialized.expect("the binary").success());
    let config = || fs::read_to_string(mesh.join("edge.toml")).expect("a file");
    let before = config();
    let made = new_service(&mesh, &offer);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let added = config();
    let added = added.strip_prefix(&before).expect("what was there stays");
    assert_eq!(
        added,
        "\n[[services]]\nnamespace = \"rooms\"\nurls = [\"http://127.0.0.1:7450\"]\n"
    );
    let policy = |folder: &Path| fs::read(folder.join("policies/rooms.cedar")).expect("a policy");
    assert_eq!(policy(&mesh), policy(&folder.path().join("rooms")));
    let printed = text(&made.stdout);
    assert!(printed.contains("added it to edge.toml"), "{printed}");
    assert!(!printed.contains("drawbridge up --service"), "{printed}");

    // A second service of the same name would be two of one namespace.
    fs::remove_file(mesh.join("policies/rooms.cedar")).expect("a file");
    let again = ["rooms", "--lang", "go", "--out", "../rooms2", "--offer"];
    let refused = new_service(&mesh, &again);
    assert!(text(&refused.stderr).contains("cannot add rooms to edge.toml"), "{refused:?}");
    assert!(!folder.path().join("rooms2").exists());
}
