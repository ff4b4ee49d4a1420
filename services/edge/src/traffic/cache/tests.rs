use std::process::Stdio;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_proto::mcp::v1 as mcp;
use drawbridge_transport::transaction_token::{
    Principal, SubjectFacts, TransactionClaims, TransactionContext,
};
use prost_reflect::Value;
use prost_reflect::prost::Message as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{catalog::testdata, keys::EdgeKeys};

mod keys;

const PATIENCE: Duration = Duration::from_secs(30);

fn rule(policy: &mcp::CachePolicy) -> CacheRule {
    let ttl = policy.ttl.or(Some(prost_types::Duration { seconds: 60, nanos: 0 }));
    CacheRule::new("test_item", "test", [7; 32], &mcp::CachePolicy { ttl, ..policy.clone() })
        .unwrap()
}

fn tagged(tag: &str) -> CacheRule {
    rule(&mcp::CachePolicy { tags: vec![tag.to_owned()], ..Default::default() })
}

fn alice() -> TransactionClaims {
    TransactionClaims {
        iss: "drawbridge-auth".into(),
        aud: "test".into(),
        sub: "alice".into(),
        iat: 1,
        exp: 31,
        txn: "one".into(),
        scope: "mcp".into(),
        tctx: TransactionContext {
            iss: "https://id.example".into(),
            principal: Principal::new("https://id.example", "alice", Some("acme")),
            tenant: Some("acme".into()),
            client_id: "claude".into(),
            tool: "test_item".into(),
            rpc: "test.v1.Service/Get".into(),
            message_sha256: None,
            facts: Some(SubjectFacts { groups: vec!["finance".into()], ..SubjectFacts::default() }),
        },
        act: None,
    }
}

/// A token without a valid signature, which the cache does not verify.
fn token(claims: &TransactionClaims) -> SecretString {
    format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap())).into()
}

fn labelled(label: &str) -> DynamicMessage {
    let mut message = DynamicMessage::new(testdata::message("Tree"));
    message.set_field_by_name("label", Value::String(label.to_owned()));
    message
}

fn bytes_of(message: &DynamicMessage) -> Bytes {
    message.encode_to_vec().into()
}

fn without_redis() -> Arc<Cache> {
    let (cache, watcher) = Cache::new(EdgeKeys::for_tests("secret").cache, None).unwrap();
    tokio::spawn(watcher.run(CancellationToken::new()));
    Arc::new(cache)
}

fn keyed(cache: &Cache, rule: &Arc<CacheRule>, label: &str) -> Option<CacheKeyed> {
    cache.keyed(rule, "test.v1.Service/Get", &labelled(label), &token(&alice()), 1)
}

async fn lookup(cache: &Cache, call: &CacheKeyed) -> Lookup {
    cache.lookup(call, Instant::now() + PATIENCE).await
}

fn fetch(lookup: Lookup) -> Fetch {
    match lookup {
        Lookup::Miss(Some(fetch)) => fetch,
        Lookup::Miss(None) => panic!("another call fetches it"),
        Lookup::Hit(_) => panic!("it is cached"),
    }
}

async fn is_hit(cache: &Cache, call: &CacheKeyed) -> bool {
    matches!(lookup(cache, call).await, Lookup::Hit(_))
}

#[tokio::test]
async fn one_of_several_calls_for_the_same_result_fetches_it() {
    let (cache, rule) = (without_redis(), Arc::new(tagged("trees")));
    let first = keyed(&cache, &rule, "x").unwrap();
    let duty = fetch(lookup(&cache, &first).await);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (cache, call) = (Arc::clone(&cache), first.clone());
            tokio::spawn(async move { is_hit(&cache, &call).await })
        })
        .collect();
    assert!(
        !is_hit(&cache, &keyed(&cache, &rule, "y").unwrap()).await,
        "a fetch of another result is not waited for"
    );
    tokio::task::yield_now().await;
    cache.store(&first, duty, bytes_of(&labelled("result"))).await;
    for waiting in waiting {
        assert!(waiting.await.unwrap());
    }
}

#[tokio::test]
async fn an_abandoned_fetch_moves_to_a_follower_and_a_failed_one_makes_all_followers_call() {
    let (cache, rule) = (without_redis(), Arc::new(tagged("trees")));
    let first = keyed(&cache, &rule, "x").unwrap();
    let waiting = |duty: Fetch, end: fn(Fetch)| {
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let (cache, call) = (Arc::clone(&cache), first.clone());
                tokio::spawn(async move {
                    match lookup(&cache, &call).await {
                        // It takes over for the others.
                        Lookup::Miss(Some(duty)) => {
                            cache.store(&call, duty, bytes_of(&labelled("result"))).await;
                            "fetched"
                        }
                        Lookup::Miss(None) => "called",
                        Lookup::Hit(_) => "hit",
                    }
                })
            })
            .collect();
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            end(duty);
            let mut ends: Vec<_> =
                futures::future::join_all(waiting).await.into_iter().map(Result::unwrap).collect();
            ends.sort_unstable();
            ends
        }
    };
    let ends = waiting(fetch(lookup(&cache, &first).await), Fetch::fail).await;
    assert_eq!(ends, ["called"; 10]);
    let ends = waiting(fetch(lookup(&cache, &first).await), drop).await;
    assert_eq!(ends.iter().filter(|&&end| end == "fetched").count(), 1, "{ends:?}");
    assert_eq!(ends.iter().filter(|&&end| end == "hit").count(), 9, "{ends:?}");
}

#[tokio::test]
async fn a_read_under_way_during_a_write_is_not_a_hit_afterwards() {
    let (cache, rule) = (without_redis(), Arc::new(tagged("trees")));
    let before = keyed(&cache, &rule, "x").unwrap();
    let duty = fetch(lookup(&cache, &before).await);
    let tags = CacheTag::all("test", &["trees".to_owned()]).unwrap();
    cache.begin_write(&tags, PATIENCE).end(true).await;
    cache.store(&before, duty, bytes_of(&labelled("old"))).await;
    let after = keyed(&cache, &rule, "x").unwrap();
    let duty = fetch(lookup(&cache, &after).await);
    cache.store(&after, duty, bytes_of(&labelled("new"))).await;
    assert!(is_hit(&cache, &after).await);

    let others = CacheTag::all("test", &["leaves".to_owned()]).unwrap();
    cache.begin_write(&others, PATIENCE).end(true).await;
    assert!(
        is_hit(&cache, &keyed(&cache, &rule, "x").unwrap()).await,
        "a write invalidates its own tags alone"
    );
}

#[tokio::test]
async fn a_write_with_an_unknown_end_invalidates_until_its_deadline() {
    let (cache, rule) = (without_redis(), Arc::new(tagged("trees")));
    let tags = CacheTag::all("test", &["trees".to_owned()]).unwrap();
    // Its caller disconnected.
    drop(cache.begin_write(&tags, Duration::from_millis(900)));
    let begins = tokio::time::Instant::now();
    let mut generations = std::collections::HashSet::new();
    while begins.elapsed() < Duration::from_secs(2) {
        generations.insert(cache.tags.generations(&tags).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(generations.len() > 2, "{generations:?}");
    let call = keyed(&cache, &rule, "x").unwrap();
    let duty = fetch(lookup(&cache, &call).await);
    cache.store(&call, duty, bytes_of(&labelled("result"))).await;
    tokio::time::sleep(2 * Duration::from_millis(200)).await;
    assert!(is_hit(&cache, &keyed(&cache, &rule, "x").unwrap()).await, "its deadline has passed");
}

#[tokio::test]
async fn a_result_that_is_too_large_or_with_the_cache_disabled_is_not_cached() {
    let (cache, rule) = (without_redis(), Arc::new(tagged("trees")));
    let large = keyed(&cache, &rule, "x").unwrap();
    cache.set(CacheSettings { entry_bytes_max: 100, ..CacheSettings::default() });
    let duty = fetch(lookup(&cache, &large).await);
    cache.store(&large, duty, bytes_of(&labelled(&"x".repeat(100)))).await;
    let duty = fetch(lookup(&cache, &large).await);
    cache.store(&large, duty, bytes_of(&labelled(&"x".repeat(90)))).await;
    assert!(is_hit(&cache, &large).await);
    cache.set(CacheSettings { enabled: false, ..CacheSettings::default() });
    assert!(keyed(&cache, &rule, "x").is_none());
    cache.set(CacheSettings::default());
    assert!(!is_hit(&cache, &large).await, "disabling the cache evicts all entries");
}

/// A Redis server for one test.
struct Redis {
    folder: TempDir,
    server: Option<Child>,
}

impl Redis {
    fn start() -> Self {
        let mut redis = Self { folder: tempfile::tempdir().unwrap(), server: None };
        redis.restart();
        redis
    }

    fn restart(&mut self) {
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", "redis.sock"])
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server; `make test` or `tests/setup.sh test` installs it");
        self.server = Some(server);
    }

    async fn kill(&mut self) {
        self.server.take().unwrap().kill().await.unwrap();
    }

    async fn replica(&self) -> Arc<Cache> {
        let url = format!("redis+unix://{}", self.folder.path().join("redis.sock").display());
        let (cache, watcher) =
            Cache::new(EdgeKeys::for_tests("secret").cache, Some(&url.into())).unwrap();
        cache.set(CacheSettings { redis_timeout: PATIENCE, ..CacheSettings::default() });
        tokio::spawn(watcher.run(CancellationToken::new()));
        let cache = Arc::new(cache);
        until(&cache, |generations| generations.is_some()).await;
        cache
    }
}

/// Waits until the generations of the `trees` tag satisfy the predicate.
async fn until(cache: &Cache, predicate: impl Fn(Option<Vec<String>>) -> bool) {
    let tags = CacheTag::all("test", &["trees".to_owned()]).unwrap();
    let waiting = async {
        while !predicate(cache.tags.generations(&tags)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the generations in time");
}

#[tokio::test]
async fn replicas_share_results_and_invalidate_them_after_one_anothers_writes() {
    let redis = Redis::start();
    let (one, other) = (redis.replica().await, redis.replica().await);
    let rule = Arc::new(tagged("trees"));
    let call = keyed(&one, &rule, "x").unwrap();
    let duty = fetch(lookup(&one, &call).await);
    one.store(&call, duty, bytes_of(&labelled("result"))).await;
    let Lookup::Hit(hit) = lookup(&other, &keyed(&other, &rule, "x").unwrap()).await else {
        panic!("the other replica does not find it")
    };
    assert_eq!(hit.message, labelled("result").encode_to_vec());
    assert!(hit.age < PATIENCE);

    let tags = CacheTag::all("test", &["trees".to_owned()]).unwrap();
    let before = other.tags.generations(&tags);
    one.begin_write(&tags, PATIENCE).end(true).await;
    assert!(
        !is_hit(&one, &keyed(&one, &rule, "x").unwrap()).await,
        "the replica that wrote sees it at once"
    );
    until(&other, |generations| generations.is_some() && generations != before).await;
    assert!(!is_hit(&other, &keyed(&other, &rule, "x").unwrap()).await);
}

#[tokio::test]
async fn tagged_results_do_not_outlive_redis_and_untagged_ones_stay_cached() {
    let mut redis = Redis::start();
    let cache = redis.replica().await;
    let (tagged, plain) = (Arc::new(tagged("trees")), Arc::new(rule(&mcp::CachePolicy::default())));
    for rule in [&tagged, &plain] {
        let call = keyed(&cache, rule, "x").unwrap();
        let duty = fetch(lookup(&cache, &call).await);
        cache.store(&call, duty, bytes_of(&labelled("result"))).await;
    }
    let tags = CacheTag::all("test", &["trees".to_owned()]).unwrap();
    let before = cache.tags.generations(&tags);
    redis.kill().await;
    until(&cache, |generations| generations.is_none()).await;
    assert!(keyed(&cache, &tagged, "x").is_none(), "writes of other replicas are unknown");
    assert!(is_hit(&cache, &keyed(&cache, &plain, "x").unwrap()).await);
    cache.begin_write(&tags, PATIENCE).end(true).await;

    redis.restart();
    until(&cache, |generations| generations.is_some()).await;
    assert_ne!(cache.tags.generations(&tags), before);
    assert!(!is_hit(&cache, &keyed(&cache, &tagged, "x").unwrap()).await);
    assert!(is_hit(&cache, &keyed(&cache, &plain, "x").unwrap()).await);
}

#[tokio::test]
async fn a_stale_result_is_served_and_refreshed_once() {
    let cache = without_redis();
    let stale_while_revalidate = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let ttl = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let rule =
        Arc::new(rule(&mcp::CachePolicy { ttl, stale_while_revalidate, ..Default::default() }));
    let call = keyed(&cache, &rule, "x").unwrap();
    let duty = fetch(lookup(&cache, &call).await);
    cache.store(&call, duty, bytes_of(&labelled("result"))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut duties: Vec<_> = Vec::new();
    for _ in 0..3 {
        let Lookup::Hit(hit) = lookup(&cache, &call).await else {
            panic!("a stale entry is served")
        };
        duties.push(hit.refresh);
    }
    let mut duties = duties.into_iter().flatten();
    let duty = duties.next().expect("one call refreshes it");
    assert!(duties.next().is_none(), "a second call refreshes it too");
    drop(duties);
    // An evicted entry is not served.
    cache.evict(&call, duty).await;
    assert!(!is_hit(&cache, &call).await);
}
