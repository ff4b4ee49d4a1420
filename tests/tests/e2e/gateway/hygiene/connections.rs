//! Clients that hold connections.

use std::time::{Duration, Instant};

use drawbridge_tests::TestMesh;
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Ordinary, PATIENCE, connect, rest};

/// Files that the rest of this process may need.
const OTHER_FILES: u64 = 4_000;
/// How many open the idle connections.
const OPENERS: u64 = 100;

#[tokio::test]
async fn headers_that_come_byte_by_byte_keep_no_connection() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.http.idle_timeout_ms = 2_000).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let began = Instant::now();
    let mut slow = JoinSet::new();
    for _ in 0..500 {
        let mut stream = connect(&edge).await;
        slow.spawn(async move {
            stream.write_all(b"POST /mcp HTTP/1.1\r\nhost: a\r\nx-slow: ").await.expect("room");
            let (mut reading, mut writing) = stream.split();
            let drip = async {
                while writing.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                }
            };
            let mut closed = [0];
            tokio::select! {
                read = timeout(PATIENCE, reading.read(&mut closed)) => {
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
async fn connections_without_a_request_are_closed_and_nobody_notices_them_before() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.http.idle_timeout_ms = 20_000).await;
    // A connection has two ends here.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = (files.saturating_sub(OTHER_FILES) / 2).clamp(200, 10_000);
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let began = Instant::now();
    let mut opening = JoinSet::new();
    let address = edge.hosted.running.address;
    for _ in 0..OPENERS {
        opening.spawn(async move {
            let mut streams = Vec::new();
            for _ in 0..count / OPENERS {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                // The first byte of HTTP/2's preface, and of POST: the server cannot tell yet.
                stream.write_all(b"P").await.expect("room");
                streams.push(stream);
            }
            streams
        });
    }
    let streams = opening.join_all().await.into_iter().flatten();
    let opened = began.elapsed();
    let metrics = format!("http://{}/metrics", edge.hosted.running.admin);
    let metrics = reqwest::get(metrics).await.expect("an answer").text().await.expect("a text");
    let open = metrics.lines().find(|line| line.starts_with("http_server_open_connections "));
    eprintln!("idle: {count} connections opened in {opened:?}; {}", open.expect("the metric"));
    for mut stream in streams {
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty(), "{answer:?}");
    }
    eprintln!("idle: the last closed after {:?}", began.elapsed());
    ordinary.stop("idle").await;
}

#[tokio::test]
async fn who_comes_when_there_is_no_room_waits_until_a_connection_ends() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.http.connections_max = 2).await;
    let (first, _second) = (connect(&edge).await, connect(&edge).await);
    let client = edge.client(&mesh.client("alice").await);
    let mut call = Box::pin(client.call("ping", json!({})));
    assert!(timeout(Duration::from_millis(300), call.as_mut()).await.is_err());
    drop(first);
    let reply = timeout(PATIENCE, call).await.expect("an answer");
    assert_eq!(reply.json["result"], json!({}));
}
