//! Replicas of auth that record the checkpoints of one another.

use drawbridge_audit::verify::LogReport;
use drawbridge_tests::Auth;

use super::*;
use crate::auth::keys::{FAST, mint, own, ready, replicas};

/// The log of one replica.
fn logging(auth: Auth, folder: &Path, replica: &str) -> Auth {
    let folder = folder.join(replica);
    auth.with(|config| {
        config.audit = audit(&folder);
        config.audit.audit_replica = Some(replica.to_owned());
    })
}

fn reports(folder: &Path) -> Vec<LogReport> {
    verify(&[folder.to_owned()], &[], |_| {}).unwrap_or_default()
}

fn problems(folder: &Path) -> Vec<String> {
    let reports = reports(folder).into_iter();
    reports.flat_map(|report| report.problems).map(|problem| problem.to_string()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// Who has the disk of a replica has its signing key too, and can write another end of its log that
/// is valid by itself.
#[tokio::test]
async fn a_tail_that_is_rewritten_with_the_key_of_one_replica_of_auth_is_found_by_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let logs = folder.path().join("logs");
    let mesh = TestMesh::start().await;
    let alice = own(&mesh, "alice").await;
    let [one, two] = replicas::<2>(&mesh, FAST);
    let (one, two) = (logging(one, &logs, "one"), logging(two, &logs, "two"));

    let running = [one.start().await, two.start().await];
    for replica in &running {
        replica.running.readiness().wait_ready().await;
    }
    // The state of the disk that the attacker goes back to.
    let [first, second] = running;
    first.stop().await;
    copy(&logs.join("one"), &folder.path().join("before"));

    let first = ready(&one).await;
    for replica in [&one, &two] {
        mint(replica, &alice).await;
    }
    let vouched = || {
        let reports = reports(&logs);
        reports.len() == 2
            && reports.iter().all(|report| {
                // It covers what the attacker removes.
                report.vouchers.iter().any(|voucher| voucher.size >= 8)
            })
    };
    let exchanging = async {
        while !vouched() {
            mint(&one, &alice).await;
            mint(&two, &alice).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(Duration::from_secs(90), exchanging).await.expect("each vouches for the other");
    first.stop().await;
    second.stop().await;
    assert_eq!(problems(&logs), [""; 0]);
    let names = |report: &LogReport| {
        let by: Vec<_> = report.vouchers.iter().map(|voucher| voucher.log.clone()).collect();
        (report.log.clone(), by)
    };
    let named: Vec<_> = reports(&logs).iter().map(names).collect();
    let [(one_log, by_two), (two_log, by_one)] = &named[..] else { panic!("{named:?}") };
    assert!(one_log.starts_with("auth/one/") && two_log.starts_with("auth/two/"), "{named:?}");
    assert_eq!((&by_two[..], &by_one[..]), (&[two_log.clone()][..], &[one_log.clone()][..]));
    let anchored = reports(&logs)[0].vouchers[0].size;

    fs::remove_dir_all(logs.join("one")).expect("the attacker removes the log");
    copy(&folder.path().join("before"), &logs.join("one"));
    let alone = one.with(|config| config.peers.clear());
    let lying = alone.start().await;
    for _ in 0..anchored {
        mint(&alone, &alice).await;
    }
    lying.stop().await;
    assert_eq!(problems(&logs.join("one")), [""; 0], "the log alone is consistent");
    let found = problems(&logs).join("\n");
    assert!(found.contains(&format!("are not those that {two_log}")), "{found}");
    assert!(found.contains("the log was rewritten after that"), "{found}");
    mesh.stop().await;
}
