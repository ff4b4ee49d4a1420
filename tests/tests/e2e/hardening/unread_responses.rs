//! Responses that their clients do not read.

use std::time::Duration;

use bytes::Bytes;
use drawbridge_tests::{Client, Edge};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle};

use super::sessions::{STEP_TIMEOUT, World};

const RESPONSE_BYTES: usize = 1024 * 1024;
/// One principal may use a quarter of it: two responses.
const RESPONSES_BYTES_MAX: usize = 8 * RESPONSE_BYTES;

fn call() -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "test_custom_header", "arguments": { "value": "x".repeat(RESPONSE_BYTES) } },
    })
}

/// An HTTP/2 connection whose client reads nothing unless it wants to.
struct Connection {
    sending: http2::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    async fn open(edge: &Edge) -> Self {
        let address = edge.url.socket_addrs(|| None).expect("an address");
        let stream = TcpStream::connect(&*address).await.expect("a connection");
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.initial_stream_window_size(1024).initial_connection_window_size(64 * 1024);
        let (sending, driving) = http.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
        Self { sending, driver: tokio::spawn(async move { drop(driving.await) }) }
    }

    async fn send(
        &mut self,
        client: &Client,
        edge: &Edge,
        accept: &str,
        body: &Value,
    ) -> Response<Incoming> {
        let request = Request::post(edge.url.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .header("mcp-protocol-version", "2025-11-25")
            .header(header::AUTHORIZATION, format!("Bearer {}", client.token()))
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        self.sending.send_request(request).await.expect("a response")
    }
}

/// Reads the first part of a response, which is then complete in the edge's memory.
async fn read_first_part(mut response: Response<Incoming>) -> Response<Incoming> {
    let mut read = 0;
    while read < 100 {
        let frame =
            response.body_mut().frame().await.expect("a part").expect("a part that arrives");
        read += frame.data_ref().map_or(0, Bytes::len);
    }
    response
}

/// The attack: a client requested whole responses and read none of them, 128 on each connection.
#[tokio::test]
async fn unread_responses_are_bounded_per_principal_and_do_not_affect_others() {
    let world = World::start(|config| config.answers_bytes_max = RESPONSES_BYTES_MAX).await;
    let (erin, frank) = (world.client(json!({})), world.client(json!({ "sub": "frank" })));
    for accept in ["application/json", "text/event-stream"] {
        let mut connection = Connection::open(&world.edge).await;
        let mut unread = Vec::new();
        let refused = loop {
            assert!(unread.len() <= 3, "{accept}: {} responses are buffered", unread.len());
            let response = connection.send(&erin, &world.edge, accept, &call()).await;
            if response.status() != StatusCode::OK {
                break response;
            }
            unread.push(read_first_part(response).await);
        };
        assert!(unread.len() >= 2, "{accept}: only {} responses are buffered", unread.len());
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{accept}");
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        let text = refused.into_body().collect().await.expect("a body").to_bytes();
        let refused: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(refused["error"]["data"]["reason"], "answers_unread", "{refused}");

        // Others get responses, and so does she once she has read hers.
        let answered = frank.send_body(call().to_string()).await;
        assert_eq!((answered.status, answered.message().len()), (StatusCode::OK, RESPONSE_BYTES));
        let read = unread.remove(0).into_body().collect().await.expect("a body").to_bytes();
        assert!(read.len() > RESPONSE_BYTES / 2, "{accept}");
        drop(unread.pop());
        assert_eq!(erin.call("ping", json!({})).await.status, StatusCode::OK, "{accept}");

        // A closed connection releases its memory.
        connection.driver.abort();
        let free = async {
            while erin.send_body(call().to_string()).await.status != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(STEP_TIMEOUT, free).await.expect("released memory");
    }
}
