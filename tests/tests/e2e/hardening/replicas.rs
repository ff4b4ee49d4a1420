//! Messages for a call of a session that runs on another replica. Only its own client reaches it,
//! through Redis, which stores them encrypted.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use drawbridge_tests::{
    Client, Edge, REPLICA_SECRET, Redis, RedisCluster, Reply, TcpProxy, UpstreamState,
};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::sessions::{STEP_TIMEOUT, Stream, World, begin, initialize, request, send};
use crate::mcp::sessions::list;

/// Two replicas that share a Redis.
struct Replicas {
    world: World,
    other: Edge,
}

impl Replicas {
    async fn start(redis_url: &str) -> Self {
        let shared = |config: &mut drawbridge_edge::Config| {
            config.secret = Some(REPLICA_SECRET.into());
            config.redis_url = Some(redis_url.into());
        };
        let world = World::start(shared).await;
        let service =
            world.mesh.grpc_url(world.service.1.running.address.tcp().expect("an address"));
        let other = world.mesh.edge(&[("test", &service)], shared).await;
        Self { world, other }
    }

    /// A client at both replicas, with a session opened at the first.
    async fn client(&self) -> (Client, Client, HeaderValue) {
        let erin = self.world.client(json!({}));
        let session = initialize(&erin).await.1.expect("a session");
        let there = self.other.client(&erin);
        assert_eq!(list(&there, &session).await.status, StatusCode::OK);
        (erin, there, session)
    }
}

/// Records all commands that Redis receives.
struct Monitor(Arc<Mutex<Vec<u8>>>);

impl Monitor {
    async fn start(redis: &Redis) -> Self {
        let url: url::Url = redis.url.parse().expect("a URL");
        let address = url.socket_addrs(|| None).expect("an address");
        let mut stream = TcpStream::connect(&*address).await.expect("a connection");
        let password = url.password().unwrap_or_default();
        let commands = format!("AUTH {password}\r\nMONITOR\r\n");
        stream.write_all(commands.as_bytes()).await.expect("a socket buffer");
        let recorded: Arc<Mutex<Vec<u8>>> = Arc::default();
        let receiving = Arc::clone(&recorded);
        tokio::spawn(async move {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                receiving.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..read]);
            }
        });
        let monitor = Self(recorded);
        until("MONITOR responds", async || monitor.text().starts_with("+OK\r\n+OK")).await;
        monitor
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Asserts that the replicas exchanged messages without these texts, and that all their keys
    /// expire.
    async fn assert_leaks_nothing(&self, redis: &Redis, texts: &[&str]) {
        let client = redis::Client::open(redis.url.as_str()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis");
        let _: String = redis::cmd("ECHO")
            .arg("the end")
            .query_async(&mut connection)
            .await
            .expect("an answer");
        until("MONITOR is up to date", async || self.text().contains("the end")).await;
        let commands = self.text();
        assert!(commands.contains("XADD") && commands.contains("drawbridge:mcp:"), "{commands}");
        for text in texts {
            assert!(!commands.contains(text), "{text}: {commands}");
        }
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
        let began = Instant::now();
        for key in keys.iter().filter(|key| key.starts_with("drawbridge:mcp:")) {
            let ttl: i64 =
                redis::cmd("TTL").arg(key).query_async(&mut connection).await.expect("a TTL");
            assert_ne!(ttl, -1, "{key} never expires");
            // A replica deletes what it has read a moment later.
            let is_read = key.contains("{inbox}") && !key.ends_with(":all");
            while is_read && length(&mut connection, key).await > 0 {
                assert!(began.elapsed() < STEP_TIMEOUT, "{key} contains messages already read");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// The number of messages of a stream in Redis.
async fn length(connection: &mut redis::aio::MultiplexedConnection, key: &str) -> u64 {
    redis::cmd("XLEN").arg(key).query_async(connection).await.expect("a length")
}

async fn until(what: &str, is_done: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(STEP_TIMEOUT, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}: not in time"));
}

fn resume(client: &Client, session: &HeaderValue, id: &str) -> reqwest::Result<reqwest::Request> {
    let id = HeaderValue::from_str(id).expect("an id");
    request(client, Method::GET, session).map(|mut request| {
        request.headers_mut().insert("last-event-id", id);
        request
    })
}

async fn get_stream(client: &Client, session: &HeaderValue, id: &str) -> Reply {
    client.send_built(resume(client, session, id)).await
}

/// The ids and messages of a stream's events.
fn events(text: &str) -> Vec<(String, Value)> {
    let events = text.split("\n\n").filter_map(|event| {
        let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        Some((line("id: ")?.to_owned(), serde_json::from_str(line("data: ")?).ok()?))
    });
    events.collect()
}

/// The first event of a stream, with its id.
async fn first(stream: &mut Stream) -> (String, Value) {
    let mut text = String::new();
    loop {
        let chunk = stream.0.chunk().await.expect("a chunk").expect("an event");
        text.push_str(&String::from_utf8_lossy(&chunk));
        if let Some(event) = events(&text).into_iter().next() {
            return event;
        }
    }
}

#[tokio::test]
async fn a_broken_stream_resumes_on_another_replica_with_each_event_once_and_its_result() {
    let redis = Redis::start().await;
    let replicas = Replicas::start(&redis.url).await;
    let (here, there, session) = replicas.client().await;
    let monitor = Monitor::start(&redis).await;
    let mut call = begin(&here, &session, "test_slow_work", json!({ "milliseconds": 1500 })).await;
    let (id, first) = first(&mut call).await;
    let (stream, number) = id.split_once('-').expect("an id");
    let number: usize = number.parse().expect("a number");
    drop(call);

    let intern = replicas.other.client(&replicas.world.client(json!({ "groups": ["interns"] })));
    let mallory = replicas.other.client(&replicas.world.client(json!({ "sub": "mallory" })));
    let to_intern = get_stream(&intern, &session, &id).await;
    assert_eq!(to_intern.status, StatusCode::BAD_REQUEST, "{to_intern:?}");
    let to_mallory = get_stream(&mallory, &session, &id).await;
    assert_eq!(to_mallory.status, StatusCode::NOT_FOUND, "{to_mallory:?}");
    for never in [format!("{stream}-1000"), "00000000000000ab-1".to_owned()] {
        let refused = get_stream(&there, &session, &never).await;
        assert_eq!(
            (refused.status, refused.error_code()),
            (StatusCode::BAD_REQUEST, Some(-32600)),
            "{never}"
        );
    }

    let rest = events(&Stream::open(resume(&there, &session, &id)).await.end().await);
    let ids: Vec<_> = rest.iter().map(|(id, _)| id.clone()).collect();
    let expected: Vec<_> =
        (number + 1..=number + rest.len()).map(|number| format!("{stream}-{number}")).collect();
    assert_eq!(ids, expected, "each event once");
    let progress = |event: &Value| event["params"]["progress"].as_f64();
    let steps: Vec<_> = std::iter::once(&first)
        .chain(rest.iter().map(|(_, event)| event))
        .filter_map(progress)
        .collect();
    assert!(steps.len() > 2 && steps.windows(2).all(|pair| pair[0] + 1.0 == pair[1]), "{steps:?}");
    let (last_id, result) = rest.last().expect("a result");
    assert_eq!(
        (&result["id"], &result["result"]["content"][0]["text"]),
        (&json!("a call"), &json!("worked"))
    );

    // Resume again, after the call has ended.
    let again = events(&Stream::open(resume(&there, &session, &id)).await.end().await);
    assert_eq!(again.last(), rest.last());
    assert_eq!(
        Stream::open(resume(&there, &session, last_id)).await.end().await.matches("data:").count(),
        0
    );
    monitor.assert_leaks_nothing(&redis, &["step ", "worked", "a call", "erin"]).await;
}

#[tokio::test]
async fn a_result_reaches_another_replica_despite_a_pause_of_redis() {
    let redis = Redis::start().await;
    let replicas = Replicas::start(&redis.url).await;
    let (here, there, session) = replicas.client().await;
    let mut call = begin(&here, &session, "test_slow_work", json!({ "milliseconds": 3000 })).await;
    let (id, _) = first(&mut call).await;
    drop(call);
    let mut again = Stream::open(resume(&there, &session, &id)).await;
    let (id, _) = first(&mut again).await;
    let client = redis::Client::open(redis.url.as_str()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis");
    // Longer than an edge's timeout for Redis.
    let pause = redis::cmd("CLIENT").arg("PAUSE").arg(1200).query_async(&mut connection).await;
    let _: String = pause.expect("an answer");
    let rest = events(&again.end().await);
    let number = |id: &str| id.split_once('-').and_then(|(_, number)| number.parse::<u64>().ok());
    let numbers: Vec<_> =
        std::iter::once(&id).chain(rest.iter().map(|(id, _)| id)).map(|id| number(id)).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "each event once: {numbers:?}");
    let (_, result) = rest.last().expect("a result");
    assert_eq!(result["result"]["content"][0]["text"], "worked");
}

#[tokio::test]
async fn an_elicitation_is_answered_through_another_replica_only_by_a_permitted_caller() {
    let redis = Redis::start().await;
    let replicas = Replicas::start(&redis.url).await;
    let (here, there, session) = replicas.client().await;
    let monitor = Monitor::start(&redis).await;
    let mut call =
        begin(&here, &session, "test_elicitation", json!({ "message": "planted question" })).await;
    let elicitation = call.until("elicitation/create").await;
    let answer = |name: &str| {
        let content = json!({ "username": name, "email": "planted@example.com" });
        let result = json!({ "action": "accept", "content": content });
        json!({ "jsonrpc": "2.0", "id": elicitation["id"], "result": result })
    };
    let intern = replicas.other.client(&replicas.world.client(json!({ "groups": ["interns"] })));
    assert_eq!(send(&intern, &session, &answer("an intern")).await.status, StatusCode::ACCEPTED);
    let mallory = replicas.other.client(&replicas.world.client(json!({ "sub": "mallory" })));
    assert_eq!(send(&mallory, &session, &answer("mallory")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(send(&there, &session, &answer("planted name")).await.status, StatusCode::ACCEPTED);
    let result = call.until("result").await;
    let text = result["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains("planted name") && !text.contains("intern"), "{result}");
    // A second answer has no effect.
    assert_eq!(send(&there, &session, &answer("too late")).await.status, StatusCode::ACCEPTED);
    monitor.assert_leaks_nothing(&redis, &["planted", "an intern", "username", "erin"]).await;
}

#[tokio::test]
async fn a_call_is_cancelled_through_another_replica_only_by_a_permitted_caller() {
    let redis = Redis::start().await;
    let replicas = Replicas::start(&redis.url).await;
    let (here, there, session) = replicas.client().await;
    let mut call =
        begin(&here, &session, "test_slow_work", json!({ "milliseconds": 60_000 })).await;
    call.until("progress").await;
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "a call" },
    });
    let intern = replicas.other.client(&replicas.world.client(json!({ "groups": ["interns"] })));
    assert_eq!(send(&intern, &session, &cancel).await.status, StatusCode::ACCEPTED);
    until("the intern is rejected", async || {
        replicas.world.mesh.log().contains(r#""reason":"policy_denied""#)
    })
    .await;
    call.until("progress").await;
    assert_eq!(replicas.world.service.0.cancelled.load(Ordering::Relaxed), 0);
    assert_eq!(send(&there, &session, &cancel).await.status, StatusCode::ACCEPTED);
    let cancelled = async || replicas.world.service.0.cancelled.load(Ordering::Relaxed) == 1;
    until("the call is cancelled", cancelled).await;
    call.end().await;
}

#[tokio::test]
async fn without_redis_the_replica_of_a_call_serves_its_stream_and_the_other_reports_unavailable() {
    let mut redis = Redis::start().await;
    let replicas = Replicas::start(&redis.url).await;
    let (here, there, session) = replicas.client().await;
    let mut call = begin(&here, &session, "test_slow_work", json!({ "milliseconds": 3000 })).await;
    let (id, _) = first(&mut call).await;
    drop(call);
    let mut elsewhere = Stream::open(resume(&there, &session, &id)).await;
    first(&mut elsewhere).await;
    redis.kill();
    let refused = get_stream(&there, &session, &id).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));
    let mut again = Stream::open(resume(&here, &session, &id)).await;
    assert_eq!(again.until("result").await["result"]["content"][0]["text"], "worked");
    redis.restart().await;
    let session = initialize(&here).await.1.expect("a session");
    let call = json!({
        "jsonrpc": "2.0", "id": 5, "method": "tools/call",
        "params": { "name": "test_slow_work", "arguments": { "milliseconds": 40 } },
    });
    assert_eq!(send(&here, &session, &call).await.message(), "worked");
}

#[tokio::test]
async fn without_redis_a_session_of_another_replica_is_unavailable_whatever_the_client_sends() {
    let redis = Redis::start().await;
    let proxy = TcpProxy::start(&[&redis.url.parse().expect("a URL")]).await;
    let replicas = Replicas::start(proxy.url().as_str()).await;
    let erin = replicas.world.client(json!({}));
    let there = replicas.other.client(&erin);
    for state in [UpstreamState::Hangs, UpstreamState::Down] {
        let session = initialize(&erin).await.1.expect("a session");
        proxy.set(0, state);
        for _ in 0..2 {
            let mut replies = vec![
                there.send_built(request(&there, Method::GET, &session)).await,
                there.send_built(request(&there, Method::DELETE, &session)).await,
            ];
            for message in [
                json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }),
                json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
                json!({ "jsonrpc": "2.0", "id": 7, "result": {} }),
            ] {
                replies.push(send(&there, &session, &message).await);
            }
            for reply in replies {
                assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
                assert_eq!(reply.error_code(), Some(-32053), "{reply:?}");
                assert_eq!(reply.message(), "the session store is unavailable; retry");
                assert_eq!(reply.json["error"]["data"]["reason"], "sessions_unavailable");
                assert!(reply.headers.contains_key("retry-after"));
                reply.assert_names_request();
            }
        }
        proxy.set(0, UpstreamState::Up);
        // The replica that has the session writes it again.
        until("the session at both replicas", async || {
            list(&erin, &session).await.status == StatusCode::OK
                && list(&there, &session).await.status == StatusCode::OK
        })
        .await;
    }
}

#[tokio::test]
async fn replicas_exchange_messages_through_a_redis_cluster() {
    let cluster = RedisCluster::start().await;
    let replicas = Replicas::start(&cluster.url).await;
    let (here, there, session) = replicas.client().await;
    let mut call = begin(&here, &session, "test_slow_work", json!({ "milliseconds": 1500 })).await;
    let (id, _) = first(&mut call).await;
    drop(call);
    let mut again = Stream::open(resume(&there, &session, &id)).await;
    assert_eq!(again.until("result").await["result"]["content"][0]["text"], "worked");
}
