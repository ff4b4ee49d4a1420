//! Replicas that die or hang under load.

use super::*;

/// How long a replica is dead, or hangs: longer than anything takes to notice.
const FAULT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_or_hanging_replica_allows_nothing_wrong_and_the_mesh_recovers_by_itself() {
    let sizes = Sizes { auth: if is_long() { 3 } else { 2 }, edge: 2, tools: 2 };
    let mut world = World::start(sizes, sizes.auth).await;
    let load = world.load();
    recovered(&load).await;
    let names = world.fleet.replicas().map(|replica| replica.name.clone());
    let names: Vec<_> = names.filter(|name| world.is_long || name.ends_with("-1")).collect();
    for name in &names {
        let began = Instant::now();
        world.fleet.replica_mut(name).kill().await;
        tokio::time::sleep(FAULT).await;
        world.fleet.replica_mut(name).start();
        observe(&mut world, &load, "kill -9", name, began).await;

        let began = Instant::now();
        world.fleet.replica_mut(name).freeze(true);
        tokio::time::sleep(FAULT).await;
        world.fleet.replica_mut(name).freeze(false);
        observe(&mut world, &load, "SIGSTOP", name, began).await;
    }
    let report = load.stop().await;
    print(&format!("all faults: {report}"));
    world.assert_safe(&report);
    // A broken connection is all that a client notices of a dead edge.
    let other = report.failed().calls.len() - report.cut().calls.len();
    assert_eq!(other, 0, "{}", report.failed().problems());
}

/// Waits until the mesh has recovered by itself, and reports what became of the calls meanwhile.
async fn observe(world: &mut World, load: &Load, fault: &str, name: &str, began: Instant) {
    world.fleet.replica_mut(name).wait_ready().await;
    recovered(load).await;
    let report = load.so_far().ended_since(began);
    let last = report.recovered_after(began).as_secs_f64();
    print(&format!("{fault} of {name}: last failure after {last:.2} s; {report}"));
    let problems = report.problems();
    problems.lines().take(6).for_each(|problem| print(&format!("  {problem}")));
    // Calls of an edge itself are cut when it dies.
    let failed = report.failed();
    assert!(name.starts_with("edge") || failed.is_empty(), "{}", failed.problems());
}
