//! Replicas of auth that come and go under load, while tokens are revoked.

use drawbridge_tests::fleet::Outcome;
use serde_json::json;

use super::*;

/// Documented: a revocation holds on every replica within a second. Each replica accepts nothing
/// once it has not read the list for that long, so the limit holds on a busy machine too.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);
/// How long a revoked token is tried.
const TRIED_FOR: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_scales_from_one_to_five_to_two_without_unknown_keys_or_stale_allows() {
    let mut world = World::start(Sizes { auth: 5, edge: 2, tools: 1 }, 1).await;
    let load = world.load();
    recovered(&load).await;
    let began = Instant::now();
    for auth in &mut world.fleet.auth[1..] {
        auth.start();
    }
    let mut stale = revoke_and_try(&world, "while auth grows").await;
    for auth in &mut world.fleet.auth[1..] {
        auth.wait_ready().await;
        world.fleet.balancer.wait_for(&auth.name).await;
    }
    print(&format!("auth 1 to 5 in {:.1} s: {}", seconds(began), load.so_far().since(began)));
    stale.extend(revoke_and_try(&world, "with five").await);

    let began = Instant::now();
    for index in [0, 2, 4] {
        world.fleet.auth[index].stop().await;
    }
    stale.extend(revoke_and_try(&world, "with two").await);
    let report = load.stop().await;
    print(&format!("auth 5 to 2 in {:.1} s: {}", seconds(began), report.since(began)));
    print(&format!("auth 1 to 5 to 2: {report}"));
    world.assert_safe(&report);
    // A single replica of auth that starves on a busy machine is a retryable error.
    let failed = report.failed();
    assert!(failed.is_empty(), "{}", failed.problems());
    assert!(stale.is_empty(), "{stale:#?}");
    world.assert_keys_known();
}

/// Revokes a token in use. Returns how long after that a call with it was still allowed, if that
/// was too long.
async fn revoke_and_try(world: &World, when: &str) -> Vec<Duration> {
    let id = uuid::Uuid::new_v4().to_string();
    let client = world.fleet.client(json!({ "sub": format!("revoked-{id}"), "jti": id }));
    let call = async || {
        let began = Instant::now();
        (began, Fleet::search(&client).await)
    };
    let deadline = Instant::now() + RECOVERY_TIMEOUT;
    while call().await.1 != Outcome::Allowed {
        assert!(Instant::now() < deadline, "not allowed before its revocation");
    }
    world.fleet.revoke(&id).await;
    let revoked = Instant::now();
    let mut allowed = Vec::new();
    loop {
        let (began, outcome) = call().await;
        if outcome == Outcome::Allowed {
            allowed.push(began - revoked);
        }
        if revoked.elapsed() > TRIED_FOR && outcome == Outcome::Unauthenticated {
            break;
        }
        assert!(Instant::now() < deadline, "not refused after its revocation: {outcome:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let latest = allowed.last().copied().unwrap_or_default().as_secs_f64();
    print(&format!("a revocation {when}: the last allowed call began {latest:.3} s after it"));
    allowed.into_iter().filter(|after| *after > REVOKED_WITHIN).collect()
}
