//! A rolling restart under load, as an upgrade does it.

use super::*;

/// Between two replicas of a service, as an orchestrator is configured to wait; and the load before
/// the first and after the last.
const PAUSE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_every_service_fails_no_call_and_ends_no_session() {
    let auth = if is_long() { 3 } else { 2 };
    let mut world = World::start(Sizes { auth, edge: 2, tools: 2 }, auth).await;
    let load = world.load();
    let sessions = sessions::Sessions::start(&world.fleet);
    tokio::time::sleep(PAUSE).await;
    for service in ["auth", "edge", "code", "invoices", "tickets"] {
        restart_all(&mut world, &load, service).await;
    }
    tokio::time::sleep(PAUSE).await;
    let report = load.stop().await;
    print(&format!("rolling restart of all: {report}"));
    let by_edge = world.fleet.calls_by_edge(&report);
    print(&format!("calls by edge: {by_edge:?}"));
    let sessions = sessions.stop().await;
    print(&format!("sessions meanwhile: {sessions}"));

    world.assert_safe(&report);
    world.assert_keys_known();
    let failed = report.failed();
    assert!(failed.is_empty(), "{}", failed.problems());
    // Tickets alone has a single replica.
    let unexpected = report.unexpected();
    let elsewhere = unexpected.without("tickets");
    assert!(elsewhere.is_empty(), "{}", elsewhere.problems());
    assert!(sessions.problems.is_empty(), "{:#?}", sessions.problems);
    assert!(sessions.ended > 0 && sessions.reconnections > 0, "{sessions}");
    assert!(by_edge.iter().all(|(_, calls)| *calls > 0), "{by_edge:?}");
    for tool in ["code_search", "code_list_files", "tickets_search", "invoices_search"] {
        let calls = report.of(tool);
        assert!(calls.unexpected().calls.len() < calls.calls.len(), "{tool}: {calls}");
    }
}

async fn restart_all(world: &mut World, load: &Load, service: &str) {
    let began = Instant::now();
    let stopping = replace_all(world, service, |_| {}).await;
    let report = load.so_far().since(began);
    let (stopping, took) = (stopping.as_secs_f64(), seconds(began));
    print(&format!("restart of {service} in {took:.1} s, a stop {stopping:.1} s: {report}"));
}

/// Stops and starts the replicas of a service one after another, as an orchestrator does, and
/// changes each while it does not run. Returns the longest time of a stop.
pub(super) async fn replace_all(
    world: &mut World,
    service: &str,
    change: impl Fn(&mut Replica),
) -> Duration {
    let fleet = &mut world.fleet;
    let mut stopping = Duration::ZERO;
    let all = fleet.auth.iter_mut().chain(&mut fleet.tools).chain(&mut fleet.edge);
    for replica in all.filter(|replica| replica.service() == service) {
        stopping = stopping.max(replica.stop().await);
        change(replica);
        replica.start();
        replica.wait_ready().await;
        if ["auth", "edge"].contains(&service) {
            fleet.balancer.wait_for(&replica.name).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    stopping
}
