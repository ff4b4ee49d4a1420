//! Replicas, and servers that they depend on, which die or hang under load.

use drawbridge_tests::fleet::DependencyName;

use super::*;

/// How long a process is dead, or hangs: longer than anything takes to notice.
const FAULT: Duration = Duration::from_secs(3);
/// Documented: how long calls are answered with 503 where another replica is there.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_or_hanging_process_allows_nothing_wrong_and_the_mesh_recovers_by_itself() {
    let sizes = Sizes { auth: if is_long() { 3 } else { 2 }, edge: 2, tools: 2 };
    let mut world = World::start(sizes, sizes.auth).await;
    let load = world.load();
    recovered(&load).await;
    let names = world.fleet.replicas().map(|replica| replica.name.clone());
    // Tool services are alike; invoices depends on most.
    let is_short = |name: &String| ["auth-1", "edge-1", "invoices-1"].contains(&name.as_str());
    let names: Vec<_> = names.filter(|name| world.is_long || is_short(name)).collect();
    for name in &names {
        let began = Instant::now();
        world.fleet.replica_mut(name).kill().await;
        tokio::time::sleep(FAULT).await;
        world.fleet.replica_mut(name).start();
        observe_replica(&mut world, &load, "kill -9", name, began).await;

        let began = Instant::now();
        world.fleet.replica_mut(name).freeze(true);
        tokio::time::sleep(FAULT).await;
        world.fleet.replica_mut(name).freeze(false);
        observe_replica(&mut world, &load, "SIGSTOP", name, began).await;
    }
    for name in DependencyName::ALL {
        let began = Instant::now();
        world.fleet.kill_dependency(name);
        tokio::time::sleep(FAULT).await;
        world.fleet.restart_dependency(name).await;
        observe(&load, "kill -9", &format!("{name:?}"), began).await;

        if world.is_long {
            let began = Instant::now();
            world.fleet.freeze_dependency(name, true);
            tokio::time::sleep(FAULT).await;
            world.fleet.freeze_dependency(name, false);
            observe(&load, "SIGSTOP", &format!("{name:?}"), began).await;
        }
    }
    let report = load.stop().await;
    print(&format!("all faults: {report}"));
    world.assert_safe(&report);
    World::assert_only_cut(&report);
}

async fn observe_replica(world: &mut World, load: &Load, fault: &str, name: &str, began: Instant) {
    world.fleet.replica_mut(name).wait_ready().await;
    let report = observe(load, fault, name, began).await;
    // Calls of an edge itself are cut when it dies.
    let failed = report.failed();
    assert!(name.starts_with("edge") || failed.is_empty(), "{}", failed.problems());
    // Tickets alone has a single replica. A figure of a release build, on a machine with time for
    // it.
    let unavailable = report.without("tickets").unavailable_for();
    let is_in_time = unavailable <= UNAVAILABLE_MAX;
    assert!(!world.is_long || is_in_time, "503 for {unavailable:?}: {}", report.problems());
}

/// Waits until the mesh has recovered by itself, and reports what became of the calls meanwhile.
async fn observe(load: &Load, fault: &str, name: &str, began: Instant) -> Report {
    recovered(load).await;
    let report = load.so_far().ended_since(began);
    let last = report.recovered_after(began).as_secs_f64();
    print(&format!("{fault} of {name}: last failure after {last:.2} s; {report}"));
    let problems = report.problems();
    problems.lines().take(6).for_each(|problem| print(&format!("  {problem}")));
    report
}
