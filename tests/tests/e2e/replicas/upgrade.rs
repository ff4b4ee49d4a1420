//! Services of two versions in one mesh, as during an upgrade and its rollback. `make upgrade-test`
//! builds the version before.

use Version::{Before, This};

use super::*;

/// The folder with the binaries of the version before.
const BEFORE: &str = "DRAWBRIDGE_UPGRADE_BINARIES";
/// The load on each mix of versions.
const LOAD: Duration = Duration::from_secs(5);

const AUTH: &[&str] = &["auth"];
const EDGE: &[&str] = &["edge"];
const TOOLS: &[&str] = &["code", "invoices", "tickets"];

/// A version of the services.
#[derive(Clone, Copy, Debug)]
enum Version {
    Before,
    This,
}

/// Which services change to which version, one after another, from a mesh of the version before
/// and back to it. The first three are an upgrade; all of them are every mix of versions.
const STEPS: [(&[&str], Version); 8] = [
    (AUTH, This),
    (TOOLS, This),
    (EDGE, This),
    (TOOLS, Before),
    (AUTH, Before),
    (TOOLS, This),
    (EDGE, Before),
    (TOOLS, Before),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the binaries of the version before: make upgrade-test"]
async fn a_rolling_upgrade_and_its_rollback_fail_no_call_and_end_no_session() {
    let mut world = World::of(binary(Before), Sizes { auth: 2, edge: 2, tools: 2 }, 2).await;
    let load = world.load();
    let sessions = sessions::Sessions::start(&world.fleet);
    recovered(&load).await;
    let began = Instant::now();
    world.fleet.migrate(binary(This)("invoices")).await;
    recovered(&load).await;
    let migrated = load.so_far().since(began);
    print(&format!("migration in {:.1} s: {migrated}", seconds(began)));
    assert!(migrated.unexpected().is_empty(), "{}", migrated.problems());

    for (services, version) in STEPS {
        let began = Instant::now();
        for service in services {
            let binary = binary(version)(service);
            let change = |replica: &mut Replica| replica.set_program(binary.clone());
            restarts::replace_all(&mut world, service, change).await;
        }
        tokio::time::sleep(LOAD).await;
        let report = load.so_far().since(began);
        print(&format!("{services:?} of {version:?}: {report}"));
    }
    // The version before finds nothing to do in the newer schema.
    world.fleet.migrate(binary(Before)("invoices")).await;

    let report = load.stop().await;
    print(&format!("upgrade and rollback: {report}"));
    let sessions = sessions.stop().await;
    print(&format!("sessions meanwhile: {sessions}"));
    world.assert_safe(&report);
    world.assert_keys_known();
    // Tickets alone has a single replica.
    let (failed, elsewhere) = (report.failed(), report.without("tickets").unexpected());
    assert!(failed.is_empty() && elsewhere.is_empty(), "{}", report.problems());
    assert!(sessions.problems.is_empty(), "{:#?}", sessions.problems);
    assert!(sessions.ended > 0, "{sessions}");
}

/// Finds the binaries of a version.
fn binary(version: Version) -> impl Fn(&str) -> PathBuf {
    move |service| match version {
        This => program(service),
        Before => {
            let folder = env::var_os(BEFORE);
            let folder = folder.unwrap_or_else(|| panic!("{BEFORE} is missing: make upgrade-test"));
            PathBuf::from(folder).join(format!("drawbridge-{service}"))
        }
    }
}
