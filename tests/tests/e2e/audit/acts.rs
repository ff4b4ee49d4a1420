//! Records of administrative acts.

use drawbridge_audit::event::{Admin, AdminAction};

use super::*;

/// Changes of the log filter during the load.
const FILTERS: usize = 5;
/// The logs that a mesh with a second edge has, without the host's name.
const LOGS: [&str; 4] = ["auth", "edge", "idp", "edge/second"];

/// All records of acts, with the service; those of a second edge with its replica too.
pub(super) fn acts(folder: &Path) -> Vec<(String, Admin)> {
    let items = drawbridge_audit::read::records(&[folder.to_owned()]).expect("logs");
    let records = items.filter_map(|item| match item.ok()? {
        drawbridge_audit::read::Item::Record(record) => Some(*record),
        drawbridge_audit::read::Item::Torn { .. } => None,
    });
    let act = |record: drawbridge_audit::Record| match record.event {
        Event::Admin(act) => {
            let (log, _) = record.log.rsplit_once('/')?;
            let service = log.split('/').next()?;
            let name = if log.ends_with("/second") { log } else { service };
            Some((name.to_owned(), *act))
        }
        _ => None,
    };
    records.filter_map(act).collect()
}

#[tokio::test]
async fn a_change_of_the_log_filter_a_key_that_signs_and_a_drain_have_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("filter");
    let logs = folder.path().join("logs");
    fs::write(&file, "error").expect("a file");
    let mesh = TestMesh::with(|config| {
        config.audit = audit(&logs);
        config.telemetry.log_filter_file = Some(file.clone());
    })
    .await;
    let until = async |what: &str, wanted: &dyn Fn(&Admin) -> bool| {
        let services = ["auth", "edge", "idp"];
        let waiting = async {
            loop {
                let acts = acts(&logs);
                let has = |name: &&str| acts.iter().any(|(by, act)| by == name && wanted(act));
                if services.iter().all(has) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    };
    let is_filter = |act: &Admin| act.action == AdminAction::LogFilter.name();
    fs::write(&file, "warn").expect("a file");
    until("the filter", &|act| is_filter(act) && act.value == "warn" && act.problem.is_empty())
        .await;
    fs::write(&file, "warn,=").expect("a file");
    until("the invalid filter", &|act| is_filter(act) && !act.problem.is_empty()).await;
    assert!(!acts(&logs).iter().any(|(_, act)| act.action == AdminAction::Drain.name()));
    mesh.stop().await;

    let acts = acts(&logs);
    let of = |name: &str, action: AdminAction| {
        acts.iter().filter(|(by, act)| by == name && act.action == action.name()).count()
    };
    for service in ["auth", "edge", "idp"] {
        assert_eq!(of(service, AdminAction::Drain), 1, "{service}: {acts:#?}");
        assert_eq!(of(service, AdminAction::LogFilter), 2, "{service}: {acts:#?}");
    }
    assert_eq!(of("auth", AdminAction::TransactionKey), 1, "{acts:#?}");
    let key = acts.iter().find(|(_, act)| act.action == AdminAction::TransactionKey.name());
    assert_eq!(key.map(|(_, act)| act.value.len()), Some(43), "an id of RFC 7638");
}

/// A replica of auth that rotates its key says which key signs from then on.
#[tokio::test]
async fn the_rotation_of_the_key_of_transaction_tokens_has_a_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let mesh = TestMesh::start().await;
    let auth = mesh.auth(|config| {
        config.audit = audit(folder.path());
        config.key_timing = crate::auth::keys::FAST;
        config.transaction_ttl_seconds = 1;
        config.transaction_key_seconds = 1;
    });
    let running = auth.start().await;
    let rotated = async {
        while acts(folder.path()).len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), rotated).await.expect("two rotations");
    let ids: std::collections::BTreeSet<_> =
        acts(folder.path()).into_iter().map(|(_, act)| (act.action, act.value)).collect();
    assert!(ids.len() >= 3 && ids.iter().all(|(action, _)| action == "transaction_key"), "{ids:?}");
    running.stop().await;
    mesh.stop().await;
}

/// Changes the log filter during the load, each time when all services have recorded the change
/// before.
pub(super) async fn change_log_filter(logs: PathBuf, file: PathBuf) {
    for number in 0..FILTERS {
        let filter = format!("error,number_{number}=error");
        fs::write(&file, &filter).expect("a file");
        let recorded = async {
            let has = |name: &str| {
                let acts = acts(&logs);
                acts.iter().any(|(by, act)| by == name && act.value == filter)
            };
            while !LOGS.iter().all(|name| has(name)) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(Duration::from_secs(60), recorded).await.expect("records of the log filter");
    }
}

/// Each administrative act has one record in the log of each service.
pub(super) fn check_acts(logs: &Path) {
    let acts = acts(logs);
    for log in LOGS {
        let of = |action: &str| {
            let own = acts.iter().filter(|(by, act)| by == log && act.action == action);
            own.map(|(_, act)| act.value.clone()).collect::<Vec<_>>()
        };
        let filters: Vec<_> =
            (0..FILTERS).map(|number| format!("error,number_{number}=error")).collect();
        assert_eq!(of("log_filter"), filters, "{log}");
        assert_eq!(of("drain").len(), 1, "{log}");
        assert_eq!(of("transaction_key").len(), usize::from(log == "auth"), "{log}");
    }
}
