use std::process::Stdio;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_proto::mcp::v1 as mcp;
use drawbridge_sdk::identity::{Facts, Principal, TransactionClaims, TransactionContext};
use prost_reflect::Value;
use prost_reflect::prost::Message as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::*;
use crate::catalog::testdata;

mod keys;

const PATIENCE: Duration = Duration::from_secs(30);

fn rule(policy: &mcp::CachePolicy) -> Rule {
    let ttl = policy.ttl.or(Some(prost_types::Duration { seconds: 60, nanos: 0 }));
    Rule::new("test_item", "test", [7; 32], &mcp::CachePolicy { ttl, ..policy.clone() }).unwrap()
}

fn tagged(tag: &str) -> Rule {
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
            facts: Some(Facts { groups: vec!["finance".into()], ..Facts::default() }),
        },
        act: None,
    }
}

/// A token that nobody has signed: whoever has one from auth does not look.
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

fn alone() -> Arc<Cache> {
    let (cache, follower) = Cache::new(&"secret".into(), None).unwrap();
    tokio::spawn(follower.follow(CancellationToken::new()));
    Arc::new(cache)
}

fn ticket(cache: &Cache, rule: &Arc<Rule>, label: &str) -> Option<Ticket> {
    cache.ticket(rule, "test.v1.Service/Get", &labelled(label), &token(&alice()), 1)
}

async fn look(cache: &Cache, ticket: &Ticket) -> Look {
    cache.look(ticket, Instant::now() + PATIENCE).await
}

fn fetch(look: Look) -> Fetch {
    match look {
        Look::Miss(Some(fetch)) => fetch,
        Look::Miss(None) => panic!("somebody else fetches it"),
        Look::Hit(_) => panic!("it is kept"),
    }
}

async fn has(cache: &Cache, ticket: &Ticket) -> bool {
    matches!(look(cache, ticket).await, Look::Hit(_))
}

#[tokio::test]
async fn of_those_who_want_the_same_one_fetches_it() {
    let (cache, rule) = (alone(), Arc::new(tagged("trees")));
    let first = ticket(&cache, &rule, "x").unwrap();
    let duty = fetch(look(&cache, &first).await);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (cache, ticket) = (Arc::clone(&cache), first.clone());
            tokio::spawn(async move { has(&cache, &ticket).await })
        })
        .collect();
    assert!(
        !has(&cache, &ticket(&cache, &rule, "y").unwrap()).await,
        "what others want is not waited for"
    );
    tokio::task::yield_now().await;
    cache.keep(&first, duty, bytes_of(&labelled("result"))).await;
    for waiting in waiting {
        assert!(waiting.await.unwrap());
    }
}

#[tokio::test]
async fn whoever_gives_up_fails_nobody_and_a_failure_is_nobody_elses() {
    let (cache, rule) = (alone(), Arc::new(tagged("trees")));
    let first = ticket(&cache, &rule, "x").unwrap();
    let waiting = |duty: Fetch, end: fn(Fetch)| {
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let (cache, ticket) = (Arc::clone(&cache), first.clone());
                tokio::spawn(async move {
                    match look(&cache, &ticket).await {
                        // It goes on for the others.
                        Look::Miss(Some(duty)) => {
                            cache.keep(&ticket, duty, bytes_of(&labelled("result"))).await;
                            "fetched"
                        }
                        Look::Miss(None) => "called",
                        Look::Hit(_) => "hit",
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
    let ends = waiting(fetch(look(&cache, &first).await), Fetch::fail).await;
    assert_eq!(ends, ["called"; 10]);
    let ends = waiting(fetch(look(&cache, &first).await), drop).await;
    assert_eq!(ends.iter().filter(|&&end| end == "fetched").count(), 1, "{ends:?}");
    assert_eq!(ends.iter().filter(|&&end| end == "hit").count(), 9, "{ends:?}");
}

#[tokio::test]
async fn a_read_that_was_under_way_when_something_was_written_is_not_found_afterwards() {
    let (cache, rule) = (alone(), Arc::new(tagged("trees")));
    let before = ticket(&cache, &rule, "x").unwrap();
    let duty = fetch(look(&cache, &before).await);
    let tags = Tag::all("test", &["trees".to_owned()]).unwrap();
    cache.writing(&tags, PATIENCE).ended(true).await;
    cache.keep(&before, duty, bytes_of(&labelled("old"))).await;
    let after = ticket(&cache, &rule, "x").unwrap();
    let duty = fetch(look(&cache, &after).await);
    cache.keep(&after, duty, bytes_of(&labelled("new"))).await;
    assert!(has(&cache, &after).await);

    let others = Tag::all("test", &["leaves".to_owned()]).unwrap();
    cache.writing(&others, PATIENCE).ended(true).await;
    assert!(has(&cache, &ticket(&cache, &rule, "x").unwrap()).await, "other tags are others");
}

#[tokio::test]
async fn a_write_of_which_nobody_knows_the_end_is_expected_until_its_deadline() {
    let (cache, rule) = (alone(), Arc::new(tagged("trees")));
    let tags = Tag::all("test", &["trees".to_owned()]).unwrap();
    // Whoever began it has gone.
    drop(cache.writing(&tags, Duration::from_millis(900)));
    let begins = tokio::time::Instant::now();
    let mut generations = std::collections::HashSet::new();
    while begins.elapsed() < Duration::from_secs(2) {
        generations.insert(cache.tags.generations(&tags).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(generations.len() > 2, "{generations:?}");
    let kept = ticket(&cache, &rule, "x").unwrap();
    let duty = fetch(look(&cache, &kept).await);
    cache.keep(&kept, duty, bytes_of(&labelled("result"))).await;
    tokio::time::sleep(2 * Duration::from_millis(200)).await;
    assert!(has(&cache, &ticket(&cache, &rule, "x").unwrap()).await, "its deadline is over");
}

#[tokio::test]
async fn what_is_too_large_or_not_wanted_is_not_kept() {
    let (cache, rule) = (alone(), Arc::new(tagged("trees")));
    let large = ticket(&cache, &rule, "x").unwrap();
    cache.set(Settings { entry_bytes_max: 100, ..Settings::default() });
    let duty = fetch(look(&cache, &large).await);
    cache.keep(&large, duty, bytes_of(&labelled(&"x".repeat(100)))).await;
    let duty = fetch(look(&cache, &large).await);
    cache.keep(&large, duty, bytes_of(&labelled(&"x".repeat(90)))).await;
    assert!(has(&cache, &large).await);
    cache.set(Settings { enabled: false, ..Settings::default() });
    assert!(ticket(&cache, &rule, "x").is_none());
    cache.set(Settings::default());
    assert!(!has(&cache, &large).await, "what was kept before is gone");
}

/// A Redis of this test's own.
struct Redis {
    folder: TempDir,
    server: Option<Child>,
}

impl Redis {
    fn start() -> Self {
        let mut redis = Self { folder: tempfile::tempdir().unwrap(), server: None };
        redis.start_again();
        redis
    }

    fn start_again(&mut self) {
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
        let (cache, follower) = Cache::new(&"secret".into(), Some(&url.into())).unwrap();
        cache.set(Settings { redis_timeout: PATIENCE, ..Settings::default() });
        tokio::spawn(follower.follow(CancellationToken::new()));
        let cache = Arc::new(cache);
        until(&cache, |heard| heard.is_some()).await;
        cache
    }
}

/// Waits until the generations of the trees are so.
async fn until(cache: &Cache, holds: impl Fn(Option<Vec<String>>) -> bool) {
    let tags = Tag::all("test", &["trees".to_owned()]).unwrap();
    let waiting = async {
        while !holds(cache.tags.generations(&tags)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the generations do not come");
}

#[tokio::test]
async fn replicas_share_results_and_hear_of_one_anothers_writes() {
    let redis = Redis::start();
    let (one, other) = (redis.replica().await, redis.replica().await);
    let rule = Arc::new(tagged("trees"));
    let kept = ticket(&one, &rule, "x").unwrap();
    let duty = fetch(look(&one, &kept).await);
    one.keep(&kept, duty, bytes_of(&labelled("result"))).await;
    let Look::Hit(hit) = look(&other, &ticket(&other, &rule, "x").unwrap()).await else {
        panic!("the other replica does not find it")
    };
    assert_eq!(hit.message, labelled("result").encode_to_vec());
    assert!(hit.age < PATIENCE);

    let tags = Tag::all("test", &["trees".to_owned()]).unwrap();
    let before = other.tags.generations(&tags);
    one.writing(&tags, PATIENCE).ended(true).await;
    assert!(
        !has(&one, &ticket(&one, &rule, "x").unwrap()).await,
        "the replica that wrote sees it at once"
    );
    until(&other, |heard| heard.is_some() && heard != before).await;
    assert!(!has(&other, &ticket(&other, &rule, "x").unwrap()).await);
}

#[tokio::test]
async fn nothing_tagged_outlives_redis_and_the_rest_goes_on() {
    let mut redis = Redis::start();
    let cache = redis.replica().await;
    let (tagged, plain) = (Arc::new(tagged("trees")), Arc::new(rule(&mcp::CachePolicy::default())));
    for rule in [&tagged, &plain] {
        let kept = ticket(&cache, rule, "x").unwrap();
        let duty = fetch(look(&cache, &kept).await);
        cache.keep(&kept, duty, bytes_of(&labelled("result"))).await;
    }
    let tags = Tag::all("test", &["trees".to_owned()]).unwrap();
    let before = cache.tags.generations(&tags);
    redis.kill().await;
    until(&cache, |heard| heard.is_none()).await;
    assert!(ticket(&cache, &tagged, "x").is_none(), "nobody could tell of a write");
    assert!(has(&cache, &ticket(&cache, &plain, "x").unwrap()).await);
    cache.writing(&tags, PATIENCE).ended(true).await;

    redis.start_again();
    until(&cache, |heard| heard.is_some()).await;
    assert_ne!(cache.tags.generations(&tags), before);
    assert!(!has(&cache, &ticket(&cache, &tagged, "x").unwrap()).await);
    assert!(has(&cache, &ticket(&cache, &plain, "x").unwrap()).await);
}

#[tokio::test]
async fn a_stale_result_is_answered_with_and_fetched_once() {
    let cache = alone();
    let stale_while_revalidate = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let ttl = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let rule =
        Arc::new(rule(&mcp::CachePolicy { ttl, stale_while_revalidate, ..Default::default() }));
    let kept = ticket(&cache, &rule, "x").unwrap();
    let duty = fetch(look(&cache, &kept).await);
    cache.keep(&kept, duty, bytes_of(&labelled("result"))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut duties: Vec<_> = Vec::new();
    for _ in 0..3 {
        let Look::Hit(hit) = look(&cache, &kept).await else { panic!("it is still of use") };
        duties.push(hit.refresh);
    }
    let mut duties = duties.into_iter().flatten();
    let duty = duties.next().expect("somebody fetches it");
    assert!(duties.next().is_none(), "and nobody else");
    drop(duties);
    // What is not to be had any more is not answered with.
    cache.forget(&kept, duty).await;
    assert!(!has(&cache, &kept).await);
}
