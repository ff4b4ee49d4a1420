//! Many replicas of every service, each a process of its own, behind a TCP balancer: restarts,
//! faults and scaling under load. `make replicas-test` runs the same for longer, in a release
//! build.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use drawbridge_tests::fleet::{Fleet, Load, Replica, Report, Sizes};
use tokio::sync::{Mutex, MutexGuard};

mod faults;
mod restarts;
mod scaling;
mod sessions;
mod upgrade;

/// The folder of binaries to run instead of this build's. It selects the long version.
const BINARIES: &str = "DRAWBRIDGE_REPLICAS_BINARIES";
/// The time limit for the mesh to recover by itself, on a busy machine too.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// A fleet is a dozen processes, and their load is measured: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A fleet, and how it is tested.
struct World {
    fleet: Fleet,
    is_long: bool,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Starts a fleet with the first `auths` replicas of auth.
    async fn start(sizes: Sizes, auths: usize) -> Self {
        Self::of(program, sizes, auths).await
    }

    /// The same, of these binaries.
    async fn of(program: impl Fn(&str) -> PathBuf, sizes: Sizes, auths: usize) -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let began = Instant::now();
        let fleet = Box::pin(Fleet::start(program, sizes, auths)).await;
        print(&format!("{} replicas are ready after {:.1} s", running(&fleet), seconds(began)));
        Self { fleet, is_long: is_long(), _alone: alone }
    }

    fn load(&self) -> Load {
        self.fleet.load(if self.is_long { 50 } else { 15 })
    }

    /// Asserts what holds whatever happens: of the calls, and of the logs of all services.
    fn assert_safe(&self, report: &Report) {
        let wrong = report.wrongly_allowed();
        assert!(wrong.is_empty(), "{}", wrong.problems());
        assert!(!report.denied().is_empty(), "no call was denied: {report}");
        let wrong = report.wrongly_denied();
        assert!(wrong.is_empty(), "{}", wrong.problems());
        // No call of the load is of a revoked token.
        let revoked = self.fleet.logged("the principal is revoked");
        assert!(revoked.is_empty(), "{revoked:#?}");
    }

    /// Asserts that a call without an error that invites to retry is one whose connection was
    /// closed: by the death of its edge, or by the balancer while no edge is ready.
    fn assert_only_cut(report: &Report) {
        let failed = report.failed();
        assert_eq!(failed.calls.len(), report.cut().calls.len(), "{}", failed.problems());
    }

    /// Asserts that the tool services accepted every transaction token.
    fn assert_keys_known(&self) {
        let rejected = self.fleet.logged("rejected a call without a valid transaction token");
        assert!(rejected.is_empty(), "{rejected:#?}");
    }
}

/// Whether this is the long version.
fn is_long() -> bool {
    env::var_os(BINARIES).is_some()
}

/// The binary of a service.
pub(crate) fn program(service: &str) -> PathBuf {
    if let Some(folder) = env::var_os(BINARIES) {
        return PathBuf::from(folder).join(format!("drawbridge-{service}"));
    }
    let path = match service {
        "auth" => env!("CARGO_BIN_EXE_auth-process"),
        "edge" => env!("CARGO_BIN_EXE_edge-process"),
        "code" => env!("CARGO_BIN_EXE_code-process"),
        "invoices" => env!("CARGO_BIN_EXE_invoices-process"),
        "tickets" => env!("CARGO_BIN_EXE_tickets-process"),
        other => panic!("there is no service {other}"),
    };
    path.into()
}

/// Waits until all calls of a second have their right outcomes. Returns when that second began.
async fn recovered(load: &Load) -> Instant {
    let deadline = Instant::now() + RECOVERY_TIMEOUT;
    loop {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let report = load.so_far().since(began);
        if !report.is_empty() && report.unexpected().is_empty() {
            return began;
        }
        assert!(Instant::now() < deadline, "no recovery:\n{}", report.problems());
    }
}

fn running(fleet: &Fleet) -> usize {
    fleet.replicas().filter(|replica| replica.is_running()).count()
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// Prints a figure, of a test that passes too.
fn print(line: &str) {
    // The macros' output is captured.
    let _ = writeln!(io::stderr(), "replicas: {line}");
}
