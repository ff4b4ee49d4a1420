//! Policies follow their files.

use std::{sync::Arc, time::Duration};

use drawbridge_sdk::Readiness;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;

/// What an edit may take until it holds.
const SOON: Duration = Duration::from_secs(1);

struct Followed {
    folder: tempfile::TempDir,
    store: Arc<PolicyStore>,
    readiness: Readiness,
    stopping: CancellationToken,
}

impl Followed {
    fn start(folder: tempfile::TempDir) -> Self {
        let store = Arc::new(PolicyStore::open(folder.path()).unwrap());
        let (readiness, stopping) = (Readiness::default(), CancellationToken::new());
        tokio::spawn(Arc::clone(&store).follow(readiness.clone(), stopping.clone()));
        Self { folder, store, readiness, stopping }
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.folder.path().join(path), text).unwrap();
    }

    fn answer(&self) -> Answer {
        self.store.load().decide(&alice(&["engineering"]), Kind::CallTool, &search(), None).answer
    }

    async fn becomes(&self, answer: Answer) {
        let started = Instant::now();
        while self.answer() != answer {
            assert!(started.elapsed() < SOON, "it is still {:?}", self.answer());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn notes(&self, wanted: impl Fn(Option<&String>) -> bool) {
        let started = Instant::now();
        while !wanted(self.readiness.notes().get("policies")) {
            assert!(started.elapsed() < SOON, "it notes {:?}", self.readiness.notes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

#[tokio::test]
async fn an_edit_a_new_file_and_a_removed_one_hold_within_a_second() {
    let followed = Followed::start(folder(PERMIT));
    let mut changes = followed.store.changes();
    let before = followed.store.load().revision().to_owned();
    assert_eq!(followed.answer(), Answer::Allow);

    followed.write("test.cedar", &PERMIT.replace("engineering", "support"));
    followed.becomes(Answer::NotPermitted).await;
    timeout(SOON, changes.changed()).await.unwrap().unwrap();
    assert_ne!(*changes.borrow_and_update(), before);

    followed.write("more.cedar", &PERMIT.replace("\"p\"", "\"more\""));
    followed.becomes(Answer::Allow).await;
    fs::remove_file(followed.folder.path().join("more.cedar")).unwrap();
    followed.becomes(Answer::NotPermitted).await;

    // As editors write: beside it, then over it.
    followed.write(".test.cedar.swp", PERMIT);
    let from = followed.folder.path().join(".test.cedar.swp");
    fs::rename(from, followed.folder.path().join("test.cedar")).unwrap();
    followed.becomes(Answer::Allow).await;
    assert_eq!(followed.store.load().revision(), before);

    followed.write("test.cedar", &PERMIT.replace("engineering", "search"));
    followed.becomes(Answer::NotPermitted).await;
    fs::create_dir(followed.folder.path().join("entities")).unwrap();
    followed.write(
        "entities/groups.json",
        r#"[{ "uid": { "type": "Group", "id": "engineering" }, "parents": [{ "type": "Group", "id": "search" }] }]"#,
    );
    followed.becomes(Answer::Allow).await;
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_is_noted_with_its_line_until_it_is_mended() {
    let followed = Followed::start(folder(PERMIT));
    let before = followed.store.load().revision().to_owned();
    followed.write(
        "more.cedar",
        "\n@id(\"m\") permit (principal, action, resource in Servise::\"code\");",
    );
    followed
        .notes(|note| {
            note.is_some_and(|note| note.contains("more.cedar:2:") && !note.contains("Servise"))
        })
        .await;
    assert_eq!((followed.answer(), followed.store.load().revision()), (Answer::Allow, &*before));
    // Nor do policies that have gone altogether.
    let hidden = followed.folder.path().with_extension("hidden");
    fs::rename(followed.folder.path(), &hidden).unwrap();
    followed.notes(|note| note.is_some_and(|note| !note.contains("more.cedar"))).await;
    assert_eq!(followed.answer(), Answer::Allow);
    fs::rename(&hidden, followed.folder.path()).unwrap();

    followed.write("more.cedar", "");
    followed.notes(|note| note.is_none()).await;
    assert_eq!(followed.answer(), Answer::Allow);
}

#[test]
fn what_was_found_in_a_policy_before_is_told_where_it_stands_now() {
    let wrong = r#"@id("w") permit (principal, action == Action::"code_serch", resource);"#;
    let folder = folder(&format!("{PERMIT}\n{wrong}\n"));
    let mut loader = load::Loader::default();
    let mut line_of_error = || {
        let PolicyError(problems) =
            loader.load(&source::Sources::read(folder.path()).unwrap()).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].place.as_ref().map(|place| (place.line, place.column))
    };
    assert_eq!(line_of_error(), Some((2, 39)));
    fs::write(folder.path().join("test.cedar"), format!("// A comment.\n{PERMIT}\n\n {wrong}\n"))
        .unwrap();
    assert_eq!(line_of_error(), Some((4, 40)));
    fs::remove_file(folder.path().join("test.cedar")).unwrap();
    fs::write(folder.path().join("moved.cedar"), wrong).unwrap();
    assert_eq!(line_of_error(), Some((1, 39)));
    // Under another schema it is right.
    let schema = CODE_SCHEMA.replace("code_search", "code_serch");
    fs::write(folder.path().join("catalog/code.cedarschema"), schema).unwrap();
    let entities = CODE_ENTITIES.replace("code_search", "code_serch");
    fs::write(folder.path().join("catalog/code.entities.json"), entities).unwrap();
    loader.load(&source::Sources::read(folder.path()).unwrap()).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_config_maps_link_is_followed_when_it_is_swapped() {
    use std::os::unix::fs::symlink;

    // As the kubelet does it: files are links into `..data`, which is a link to a dated folder.
    let (one, other) = (folder(PERMIT), folder(&PERMIT.replace("engineering", "support")));
    let mount = tempfile::tempdir().unwrap();
    let path = |name: &str| mount.path().join(name);
    symlink(one.path(), path("..data")).unwrap();
    for name in ["mcp.cedarschema", "catalog", "test.cedar"] {
        symlink(Path::new("..data").join(name), path(name)).unwrap();
    }
    let followed = Followed::start(mount);
    assert_eq!(followed.answer(), Answer::Allow);
    let path = |name: &str| followed.folder.path().join(name);
    symlink(other.path(), path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    followed.becomes(Answer::NotPermitted).await;
}
