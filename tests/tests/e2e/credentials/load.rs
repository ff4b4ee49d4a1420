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
/// For how long Vault is gone under load: a minute in CI.
fn outage() -> Duration {
    Duration::from_secs(if std::env::var_os("CI").is_some() { 60 } else { 8 })
}

/// So many calls by all principals in turn, so many at once. Returns the database users that they had.
async fn calls(credentials: &Credentials, callers: &Arc<Vec<Caller>>) -> HashSet<String> {
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
        users.extend(connection.await.expect("an end"));
    }
    users
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_of_a_hundred_principals_take_a_hundred_leases_and_the_next_thousand_none()
{
    let issuer = TestIssuer::with_every_algorithm().await;
    let world = world_of(&issuer).await;
    let callers: Vec<_> = (0..PRINCIPALS)
        .map(|number| {
            caller_of(&issuer, &format!("user-{number}"), |claims| claims.exp = claims.iat + 60)
        })
        .collect();
    let (credentials, callers) = (world.credentials(), Arc::new(callers));
    let taken = || {
        let logins = world.vault.answered("auth/drawbridge/login").len();
        (logins, world.vault.answered(&format!("database/creds/{ROLE}")).len())
    };
    let began = Instant::now();
    let users = calls(&credentials, &callers).await;
    let (first, between) = (began.elapsed(), Instant::now());
    assert_eq!(users.len(), PRINCIPALS);
    assert_eq!(taken(), (PRINCIPALS, PRINCIPALS));
    assert_eq!(calls(&credentials, &callers).await, users);
    assert_eq!(taken(), (PRINCIPALS, PRINCIPALS));
    println!(
        "{CALLS} calls of {PRINCIPALS} principals: {first:?} at first, {:?} again",
        between.elapsed()
    );

    credentials.close().await;
    eventually("every user is gone", Duration::from_secs(60), || {
        world.postgres.leased_users().is_empty()
    })
    .await;
}

/// What callers got while Vault was there and was not.
#[derive(Debug, Default)]
struct Counts {
    given: AtomicU64,
    refused: AtomicU64,
}

/// Asks again and again until `over`. What is not given is refused in time, and with a reason to try again.
async fn ask_on(
    credentials: Credentials,
    callers: impl AsyncFn() -> Caller,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
) {
    while !over.load(Ordering::Relaxed) {
        let caller = callers().await;
        let began = Instant::now();
        match credentials.database(&caller, &context(), ROLE).await {
            Ok(_) => counts.given.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert_eq!(tonic::Status::from(error).code(), tonic::Code::Unavailable);
                counts.refused.fetch_add(1, Ordering::Relaxed)
            }
        };
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn under_load_without_vault_leases_in_hand_go_on_others_are_to_try_again_and_all_recovers_alone() {
    let secrets: Arc<Mutex<Vec<String>>> = Arc::default();
    let noting = Arc::clone(&secrets);
    let (log, metrics) = observed(move || async move {
        let issuer = Arc::new(TestIssuer::with_every_algorithm().await);
        let mut world = World::bare_on(Vault::lasting()).await;
        world.setup.jwks_url = issuer.url.join("/jwks").expect("a URL");
        world.setup.services[0].ttl_seconds = 300;
        world.setup.services[0].database_roles[0].ttl_seconds = 300;
        world.bootstrap().await;
        let credentials = world.credentials();

        let alice = caller_of(&issuer, "alice", |_| {});
        let lease = credentials.database(&alice, &context(), ROLE).await.expect("a lease");
        noting.lock().unwrap_or_else(PoisonError::into_inner).extend([
            lease.password.expose_secret().to_owned(),
            alice.token.expose_secret().to_owned(),
            world.vault.root_token.clone(),
        ]);
        let over = Arc::new(AtomicBool::new(false));
        let (in_hand, newcomers) = (Arc::new(Counts::default()), Arc::new(Counts::default()));
        let number = Arc::new(AtomicU64::new(0));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let alice = alice.clone();
            let had = async move || alice.clone();
            asking.spawn(ask_on(credentials.clone(), had, Arc::clone(&over), Arc::clone(&in_hand)));
            let (issuer, number) = (Arc::clone(&issuer), Arc::clone(&number));
            let new = async move || {
                let number = number.fetch_add(1, Ordering::Relaxed);
                caller_of(&issuer, &format!("newcomer-{number}"), |_| {})
            };
            asking.spawn(ask_on(
                credentials.clone(),
                new,
                Arc::clone(&over),
                Arc::clone(&newcomers),
            ));
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let given_to_newcomers = async |more_than: u64| {
            eventually("somebody new gets a lease", SOON, || read(&newcomers.given) > more_than)
                .await;
        };
        given_to_newcomers(0).await;
        assert_eq!(read(&newcomers.refused), 0);

        world.vault.kill();
        let before = read(&in_hand.given);
        tokio::time::sleep(outage()).await;
        assert!(read(&in_hand.given) > before + 50, "{in_hand:?}");
        assert!(read(&newcomers.refused) > 0, "{newcomers:?}");
        world.vault.start_again().await;
        let (given, refused) = (read(&newcomers.given), read(&newcomers.refused));
        given_to_newcomers(given).await;
        over.store(true, Ordering::Relaxed);
        while let Some(ended) = asking.join_next().await {
            ended.expect("nothing else than a reason to try again");
        }
        assert_eq!(read(&in_hand.refused), 0, "{in_hand:?}");
        let again =
            credentials.database(&alice, &context(), ROLE).await.expect("the lease in hand");
        assert_eq!(again.username, lease.username);
        println!(
            "{:?} without Vault: {} calls with a lease went on, {refused} others were to try again",
            outage(),
            read(&in_hand.given) - before,
        );
        credentials.close().await;
    });
    let secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(secrets.len(), 3);
    for secret in secrets.iter() {
        assert!(!log.contains(secret.as_str()), "{secret} is in the log");
        assert!(!metrics.contains(secret.as_str()), "{secret} is in the metrics");
    }
    let said = |text: &str| log.matches(text).count();
    assert_eq!(
        (said("Vault has failed repeatedly; it is left alone"), said("Vault answers again")),
        (1, 1)
    );
}
