use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use drawbridge_tests::TestIssuer;
use secrecy::ExposeSecret as _;

use super::{
    keys::{caller_of, world_of},
    *,
};

const PRINCIPALS: usize = 100;
const CALLS: usize = 1000;
const CONNECTIONS: usize = 8;
/// The duration of Vault's outage under load: a minute in CI.
fn outage() -> Duration {
    Duration::from_secs(if std::env::var_os("CI").is_some() { 60 } else { 8 })
}

/// Makes `CALLS` calls over `CONNECTIONS` tasks, round-robin over all principals. Returns their
/// database users.
async fn calls(credentials: &Credentials, callers: &Arc<Vec<VerifiedCaller>>) -> HashSet<String> {
    let next = Arc::new(AtomicU64::new(0));
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (credentials, callers, next) =
                (credentials.clone(), Arc::clone(callers), Arc::clone(&next));
            tokio::spawn(async move {
                let mut users = HashSet::new();
                loop {
                    let call =
                        usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("a number");
                    if call >= CALLS {
                        return users;
                    }
                    let caller = &callers[call % callers.len()];
                    let context = CallContext::new(RequestId::generate(), Duration::from_secs(60));
                    let lease =
                        credentials.database(caller, &context, ROLE).await.expect("a lease");
                    users.insert(lease.username.clone());
                }
            })
        })
        .collect();
    let mut users = HashSet::new();
    for connection in connections {
        users.extend(connection.await.expect("a completed task"));
    }
    users
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_of_a_hundred_principals_take_a_hundred_leases_and_the_next_thousand_reuse_them()
 {
    let issuer = TestIssuer::with_every_algorithm().await;
    let world = world_of(&issuer).await;
    let callers: Vec<_> = (0..PRINCIPALS)
        .map(|number| {
            caller_of(&issuer, &format!("user-{number}"), |claims| claims.exp = claims.iat + 60)
        })
        .collect();
    let (credentials, callers) = (world.credentials(), Arc::new(callers));
    let requests = || {
        let logins = world.vault.responses("auth/drawbridge/login").len();
        (logins, world.vault.responses(&format!("database/creds/{ROLE}")).len())
    };
    let began = Instant::now();
    let users = calls(&credentials, &callers).await;
    let (first, between) = (began.elapsed(), Instant::now());
    assert_eq!(users.len(), PRINCIPALS);
    assert_eq!(requests(), (PRINCIPALS, PRINCIPALS));
    assert_eq!(calls(&credentials, &callers).await, users);
    assert_eq!(requests(), (PRINCIPALS, PRINCIPALS));
    println!(
        "{CALLS} calls of {PRINCIPALS} principals: {first:?} at first, {:?} again",
        between.elapsed()
    );

    credentials.close().await;
    eventually("every user is removed", Duration::from_secs(60), || {
        world.postgres.leased_users().is_empty()
    })
    .await;
}

/// The outcomes of lease requests with and without Vault.
#[derive(Debug, Default)]
struct Counts {
    granted: AtomicU64,
    rejected: AtomicU64,
}

/// Requests leases until `over`. A rejection is retryable.
async fn request_until(
    credentials: Credentials,
    callers: impl AsyncFn() -> VerifiedCaller,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
) {
    while !over.load(Ordering::Relaxed) {
        let caller = callers().await;
        match credentials.database(&caller, &context(), ROLE).await {
            Ok(_) => counts.granted.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert_eq!(tonic::Status::from(error).code(), tonic::Code::Unavailable);
                counts.rejected.fetch_add(1, Ordering::Relaxed)
            }
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn under_load_without_vault_cached_leases_work_others_are_retryable_and_all_recovers() {
    let secrets: Arc<Mutex<Vec<String>>> = Arc::default();
    let recorder = Arc::clone(&secrets);
    let (log, metrics) = observed(move || async move {
        let issuer = Arc::new(TestIssuer::with_every_algorithm().await);
        let mut world = World::bare_with(Vault::persistent()).await;
        world.setup.jwks_url = issuer.url.join("/jwks").expect("a URL");
        world.setup.services[0].ttl_seconds = 300.into();
        world.setup.services[0].database_roles[0].ttl_seconds = 300.into();
        world.bootstrap().await;
        let credentials = world.credentials();

        let alice = caller_of(&issuer, "alice", |_| {});
        let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
        recorder.lock().unwrap_or_else(PoisonError::into_inner).extend([
            lease.password.expose_secret().to_owned(),
            alice.token.expose_secret().to_owned(),
            world.vault.root_token.clone(),
        ]);
        let over = Arc::new(AtomicBool::new(false));
        let (cached, newcomers) = (Arc::new(Counts::default()), Arc::new(Counts::default()));
        let number = Arc::new(AtomicU64::new(0));
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let alice = alice.clone();
            let existing = async move || alice.clone();
            requests.spawn(request_until(
                credentials.clone(),
                existing,
                Arc::clone(&over),
                Arc::clone(&cached),
            ));
            let (issuer, number) = (Arc::clone(&issuer), Arc::clone(&number));
            let new = async move || {
                let number = number.fetch_add(1, Ordering::Relaxed);
                caller_of(&issuer, &format!("newcomer-{number}"), |_| {})
            };
            requests.spawn(request_until(
                credentials.clone(),
                new,
                Arc::clone(&over),
                Arc::clone(&newcomers),
            ));
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let granted_to_newcomers = async |more_than: u64| {
            eventually("a new caller gets a lease", SETTLE_TIMEOUT, || {
                read(&newcomers.granted) > more_than
            })
            .await;
        };
        granted_to_newcomers(0).await;

        world.vault.kill();
        let before = read(&cached.granted);
        let rejected_before = read(&newcomers.rejected);
        tokio::time::sleep(outage()).await;
        eventually("cached leases work and the circuit rejects others", SETTLE_TIMEOUT, || {
            read(&cached.granted) > before + 50 && read(&newcomers.rejected) > rejected_before + 50
        })
        .await;
        world.vault.restart().await;
        let (granted, rejected) = (read(&newcomers.granted), read(&newcomers.rejected));
        granted_to_newcomers(granted).await;
        over.store(true, Ordering::Relaxed);
        while let Some(ended) = requests.join_next().await {
            ended.expect("only retryable errors");
        }
        assert_eq!(read(&cached.rejected), 0, "{cached:?}");
        let again = credentials.database(&alice, &context(), ROLE).await.expect("the cached lease");
        assert_eq!(again.username, lease.username);
        println!(
            "{:?} without Vault: {} calls with a cached lease succeeded, {rejected} others were retryable",
            outage(),
            read(&cached.granted) - before,
        );
        credentials.close().await;
    });
    let secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(secrets.len(), 3);
    for secret in secrets.iter() {
        assert!(!log.contains(secret.as_str()), "{secret} is in the log");
        assert!(!metrics.contains(secret.as_str()), "{secret} is in the metrics");
    }
    check_transitions(&log);
}

/// Asserts that the log has each transition of the circuit once. A slow machine may open it more
/// often than the outage does.
fn check_transitions(log: &str) {
    let (opened, closed) = ("Vault failed repeatedly; its circuit is open", "Vault answers again");
    let transitions = log.lines().filter_map(|line| match line {
        line if line.contains(opened) => Some(opened),
        line if line.contains(closed) => Some(closed),
        _ => None,
    });
    let transitions: Vec<_> = transitions.collect();
    let alternating = [opened, closed].into_iter().cycle().take(transitions.len());
    let alternates = transitions.iter().copied().eq(alternating);
    assert!(transitions.len() >= 2 && alternates, "{transitions:?}");
}
