//! Slow, idle and excess connections.

use std::{
    env,
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use drawbridge_tests::TestMesh;
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Ordinary, STEP_TIMEOUT, connect};

/// File descriptors reserved for the rest of this process.
const OTHER_FILES: u64 = 4_000;
const IDLE_MAX: u64 = 10_000;
/// Long enough for all connections to be open at the same time, on a busy machine too.
const IDLE_MS: u64 = 90_000;
/// The number of tasks that open the idle connections.
const OPENERS: usize = 100;
/// The variables with the edge's address and the number of connections for the crowd's process.
const EDGE: &str = "DRAWBRIDGE_TEST_EDGE";
const COUNT: &str = "DRAWBRIDGE_TEST_COUNT";

#[tokio::test]
async fn a_connection_with_slow_headers_is_closed() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.http.idle_timeout_ms = 2_000).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let began = Instant::now();
    let mut slow = JoinSet::new();
    for _ in 0..500 {
        let mut stream = connect(&edge).await;
        slow.spawn(async move {
            stream
                .write_all(b"POST /mcp HTTP/1.1\r\nhost: a\r\nx-slow: ")
                .await
                .expect("a socket buffer");
            let (mut reading, mut writing) = stream.split();
            let drip = async {
                while writing.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                }
            };
            let mut closed = [0];
            tokio::select! {
                read = timeout(STEP_TIMEOUT, reading.read(&mut closed)) => {
                    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
                }
                () = drip => {}
            }
        });
    }
    slow.join_all().await;
    eprintln!("Slowloris: 500 connections, the last closed after {:?}", began.elapsed());
    ordinary.stop("Slowloris").await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_do_not_disturb_other_clients() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.http.idle_timeout_ms = IDLE_MS).await;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = files.saturating_sub(OTHER_FILES).clamp(200, IDLE_MAX);
    let ordinary = Ordinary::start(&mesh, &edge).await;
    // Each connection uses a descriptor at both ends, so the crowd runs in its own process.
    let mut crowd = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "--ignored", "--nocapture", "gateway::hygiene::connections::as_a_crowd"])
        .env(EDGE, edge.hosted.running.address.to_string())
        .env(COUNT, count.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut output = BufReader::new(crowd.stdout.take().expect("its output")).lines();
    let mut read_after = async |marker: &str| {
        while let Some(line) = output.next_line().await.expect("a text") {
            if let Some((_, rest)) = line.split_once(marker) {
                return rest.to_owned();
            }
        }
        panic!("the crowd exited without printing {marker:?}")
    };
    let opened = read_after("opened in").await;
    let metrics = format!("http://{}/metrics", edge.hosted.running.admin);
    let metrics = reqwest::get(metrics).await.expect("an answer").text().await.expect("a text");
    let open = metrics.lines().find_map(|line| line.strip_prefix("http_server_open_connections "));
    let open = open.expect("the metric");
    eprintln!("idle: {count} connections opened in{opened}; the server has {open}");
    assert!(open.parse::<u64>().expect("a number") >= count, "some were closed too early");
    eprintln!("idle: the last closed after{}", read_after("closed after").await);
    assert!(crowd.wait().await.expect("an exit").success());
    ordinary.stop("idle").await;
}

#[ignore = "the process of the test above"]
#[tokio::test]
async fn as_a_crowd() {
    let variable = |name: &str| env::var(name).expect("the test above sets it");
    let address: SocketAddr = variable(EDGE).parse().expect("an address");
    let count: usize = variable(COUNT).parse().expect("a number");
    let began = Instant::now();
    let mut opening = JoinSet::new();
    for opener in 0..OPENERS {
        opening.spawn(async move {
            let mut streams = Vec::new();
            for _ in (opener..count).step_by(OPENERS) {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                // Both HTTP/2's preface and POST start with this byte, so the server must wait for
                // more.
                stream.write_all(b"P").await.expect("a socket buffer");
                streams.push(stream);
            }
            streams
        });
    }
    let streams = opening.join_all().await.into_iter().flatten();
    println!("opened in {:?}", began.elapsed());
    for mut stream in streams {
        let mut answer = [0];
        let closed = timeout(Duration::from_millis(2 * IDLE_MS), stream.read(&mut answer)).await;
        // A reset closes the connection too.
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    }
    println!("closed after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_another_closes() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.http.connections_max = 2).await;
    let (first, _second) = (connect(&edge).await, connect(&edge).await);
    let client = edge.client(&mesh.client("alice").await);
    let mut call = Box::pin(client.call("ping", json!({})));
    assert!(timeout(Duration::from_millis(300), call.as_mut()).await.is_err());
    drop(first);
    let reply = timeout(STEP_TIMEOUT, call).await.expect("an answer");
    assert_eq!(reply.json["result"], json!({}));
}
