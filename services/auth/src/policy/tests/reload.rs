//! Policies are reloaded when their files change.

use std::{sync::Arc, time::Duration};

use drawbridge_audit::AuditLog;
use drawbridge_runtime::Readiness;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;

/// How long an edit may take to apply.
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
        tokio::spawn(Arc::clone(&store).follow(
            AuditLog::off().unwrap(),
            readiness.clone(),
            stopping.clone(),
        ));
        Self { folder, store, readiness, stopping }
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.folder.path().join(path), text).unwrap();
    }

    fn outcome(&self) -> DecisionOutcome {
        self.store.load().decide(&alice(&["engineering"]), Kind::CallTool, &search(), None).outcome
    }

    async fn becomes(&self, outcome: DecisionOutcome) {
        let started = Instant::now();
        while self.outcome() != outcome {
            assert!(started.elapsed() < SOON, "it is still {:?}", self.outcome());
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
async fn an_edit_a_new_file_and_a_removed_file_apply_within_a_second() {
    let followed = Followed::start(folder(PERMIT));
    let mut changes = followed.store.subscribe();
    let before = followed.store.load().revision().to_owned();
    assert_eq!(followed.outcome(), DecisionOutcome::Allow);

    followed.write("test.cedar", &PERMIT.replace("engineering", "support"));
    followed.becomes(DecisionOutcome::NotPermitted).await;
    timeout(SOON, changes.changed()).await.unwrap().unwrap();
    assert_ne!(*changes.borrow_and_update(), before);

    followed.write("more.cedar", &PERMIT.replace("\"p\"", "\"more\""));
    followed.becomes(DecisionOutcome::Allow).await;
    fs::remove_file(followed.folder.path().join("more.cedar")).unwrap();
    followed.becomes(DecisionOutcome::NotPermitted).await;

    // As editors do: write a temporary file, then rename it.
    followed.write(".test.cedar.swp", PERMIT);
    let from = followed.folder.path().join(".test.cedar.swp");
    fs::rename(from, followed.folder.path().join("test.cedar")).unwrap();
    followed.becomes(DecisionOutcome::Allow).await;
    assert_eq!(followed.store.load().revision(), before);

    followed.write("test.cedar", &PERMIT.replace("engineering", "search"));
    followed.becomes(DecisionOutcome::NotPermitted).await;
    fs::create_dir(followed.folder.path().join("entities")).unwrap();
    followed.write(
        "entities/groups.json",
        r#"[{ "uid": { "type": "Group", "id": "engineering" }, "parents": [{ "type": "Group", "id": "search" }] }]"#,
    );
    followed.becomes(DecisionOutcome::Allow).await;
}

#[tokio::test]
async fn an_invalid_edit_has_no_effect_and_is_noted_with_its_line_until_it_is_fixed() {
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
    assert_eq!(
        (followed.outcome(), followed.store.load().revision()),
        (DecisionOutcome::Allow, &*before)
    );
    // Neither does a missing folder.
    let hidden = followed.folder.path().with_extension("hidden");
    fs::rename(followed.folder.path(), &hidden).unwrap();
    followed.notes(|note| note.is_some_and(|note| !note.contains("more.cedar"))).await;
    assert_eq!(followed.outcome(), DecisionOutcome::Allow);
    fs::rename(&hidden, followed.folder.path()).unwrap();

    followed.write("more.cedar", "");
    followed.notes(|note| note.is_none()).await;
    assert_eq!(followed.outcome(), DecisionOutcome::Allow);
}

#[test]
fn a_cached_problem_is_reported_at_its_current_place() {
    let invalid = r#"@id("w") permit (principal, action == Action::"code_serch", resource);"#;
    let folder = folder(&format!("{PERMIT}\n{invalid}\n"));
    let mut loader = load::Loader::default();
    let mut line_of_error = || {
        let PolicyError(problems) =
            loader.load(&source::PolicySources::read(folder.path()).unwrap()).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].place.as_ref().map(|place| (place.line, place.column))
    };
    assert_eq!(line_of_error(), Some((2, 39)));
    fs::write(folder.path().join("test.cedar"), format!("// A comment.\n{PERMIT}\n\n {invalid}\n"))
        .unwrap();
    assert_eq!(line_of_error(), Some((4, 40)));
    fs::remove_file(folder.path().join("test.cedar")).unwrap();
    fs::write(folder.path().join("moved.cedar"), invalid).unwrap();
    assert_eq!(line_of_error(), Some((1, 39)));
    // Under another schema it is valid.
    let schema = CODE_SCHEMA.replace("code_search", "code_serch");
    fs::write(folder.path().join("catalog/code.cedarschema"), schema).unwrap();
    let entities = CODE_ENTITIES.replace("code_search", "code_serch");
    fs::write(folder.path().join("catalog/code.entities.json"), entities).unwrap();
    loader.load(&source::PolicySources::read(folder.path()).unwrap()).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_swapped_link_of_a_config_map_is_followed() {
    use std::os::unix::fs::symlink;

    // As the kubelet does: files link into `..data`, which links to a dated folder.
    let (one, other) = (folder(PERMIT), folder(&PERMIT.replace("engineering", "support")));
    let mount = tempfile::tempdir().unwrap();
    let path = |name: &str| mount.path().join(name);
    symlink(one.path(), path("..data")).unwrap();
    for name in ["mcp.cedarschema", "catalog", "test.cedar"] {
        symlink(Path::new("..data").join(name), path(name)).unwrap();
    }
    let followed = Followed::start(mount);
    assert_eq!(followed.outcome(), DecisionOutcome::Allow);
    let path = |name: &str| followed.folder.path().join(name);
    symlink(other.path(), path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    followed.becomes(DecisionOutcome::NotPermitted).await;
}
