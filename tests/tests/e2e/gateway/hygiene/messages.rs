//! Oversized, slow and smuggled HTTP/1.1 requests.

use std::time::Duration;

use drawbridge_tests::{Edge, TestMesh};
use tokio::{io::AsyncWriteExt as _, net::tcp::OwnedWriteHalf, time::sleep};

use super::{Ordinary, connect, read_to_close};

/// Sends these bytes and reads the response until the edge closes.
async fn exchange(edge: &Edge, bytes: &[u8]) -> String {
    let mut stream = connect(edge).await;
    stream.write_all(bytes).await.expect("a server that keeps reading");
    String::from_utf8_lossy(&read_to_close(&mut stream).await).into_owned()
}

fn head(edge: &Edge, headers: &str) -> String {
    let host = &edge.hosted.running.address;
    format!("POST /mcp HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{headers}\r\n")
}

#[tokio::test]
async fn headers_of_64_kib_are_rejected_with_431() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let one = format!("x-large: {}\r\n", "x".repeat(64 * 1024));
    let many: String =
        (0..64).map(|number| format!("x-{number}: {}\r\n", "x".repeat(1024))).collect();
    for headers in [one, many] {
        let answer = exchange(&edge, head(&edge, &headers).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    ordinary.stop("64 KiB of headers").await;
}

#[tokio::test]
async fn a_slow_body_is_rejected_with_408() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.http.body_timeout_ms = 2_000).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let token = format!("authorization: Bearer {}\r\n", mesh.client("alice").await.token());
    for (token, expected) in [(token.as_str(), "HTTP/1.1 408 "), ("", "HTTP/1.1 401 ")] {
        for length in ["content-length: 1000\r\n", "transfer-encoding: chunked\r\n"] {
            let (mut reading, writing) = connect(&edge).await.into_split();
            let head = head(&edge, &format!("{token}{length}"));
            let dripping = tokio::spawn(drip(writing, head));
            let answer = String::from_utf8_lossy(&read_to_close(&mut reading).await).into_owned();
            assert!(answer.starts_with(expected), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
            dripping.abort();
        }
    }
    ordinary.stop("slow bodies").await;
}

async fn drip(mut stream: OwnedWriteHalf, head: String) {
    let chunked = head.contains("chunked");
    let mut sent = stream.write_all(head.as_bytes()).await;
    while sent.is_ok() {
        sleep(Duration::from_millis(100)).await;
        sent = stream.write_all(if chunked { b"1\r\n \r\n" } else { b" " }).await;
    }
}

#[tokio::test]
async fn a_smuggled_request_is_never_answered() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let host = &edge.hosted.running.address;
    let smuggled =
        format!("GET /.well-known/oauth-protected-resource HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let body = format!("0\r\n\r\n{smuggled}");
    let length = format!("content-length: {}\r\n", body.len());
    let chunked = "transfer-encoding: chunked\r\n".to_owned();
    for (headers, expected) in [
        // RFC 9112 section 6.1: a server may reject such a request.
        (format!("{length}{chunked}"), "400"),
        (format!("{chunked}{length}"), "400"),
        (format!("content-length: 4\r\n{length}"), "400"),
        (format!("content-length: +{}\r\n", body.len()), "400"),
        ("transfer-encoding: xchunked\r\n".to_owned(), "400"),
        ("transfer-encoding: chunked, identity\r\n".to_owned(), "400"),
        ("transfer-encoding : chunked\r\n".to_owned(), "400"),
        (format!("host: other.example\r\n{length}connection: close\r\n"), "403"),
    ] {
        let answer = exchange(&edge, format!("{}{body}", head(&edge, &headers)).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{headers}{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers}{answer}");
    }
    ordinary.stop("smuggled requests").await;
}
