//! Floods of HTTP/2 frames (RFC 9113).

use drawbridge_tests::{Edge, TestMesh};
use tokio::io::AsyncWriteExt as _;

use super::{Ordinary, connect, rest};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const ENHANCE_YOUR_CALM: [u8; 4] = 11_u32.to_be_bytes();

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, stream.to_be_bytes().as_slice(), payload].concat()
}

/// `GET /` to this edge, by HPACK's static table.
fn request(edge: &Edge) -> Vec<u8> {
    let host = edge.hosted.running.address.to_string();
    let length = u8::try_from(host.len()).expect("a short name");
    [&[0x82, 0x86, 0x84, 0x41, length], host.as_bytes()].concat()
}

/// The error that the edge ends the connection with when it is sent these frames.
async fn last_word(edge: &Edge, frames: &[u8]) -> [u8; 4] {
    let (mut reading, mut writing) = connect(edge).await.into_split();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    // The server may have heard enough before the end.
    let writing = tokio::spawn(async move { writing.write_all(&bytes).await.map(|()| writing) });
    let answer = rest(&mut reading).await;
    writing.abort();
    let (mut rest, mut error) = (answer.as_slice(), None);
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("a length");
        let (payload, next) = payload.split_at(length.min(payload.len()));
        if *kind == GOAWAY {
            error = payload.get(4..8).and_then(|code| code.try_into().ok());
        }
        rest = next;
    }
    error.unwrap_or_else(|| panic!("the connection ended without GOAWAY: {answer:?}"))
}

#[tokio::test]
async fn a_burst_of_streams_that_are_reset_at_once_ends_the_connection() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let request = request(&edge);
    let burst: Vec<u8> = (0..10_000)
        .map(|number| 2 * number + 1)
        .flat_map(|stream| {
            let headers = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request);
            [headers, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(last_word(&edge, &burst).await, ENHANCE_YOUR_CALM);
    }
    ordinary.stop("HTTP/2 rapid reset, 20 × 10,000 streams").await;
}

#[tokio::test]
async fn headers_without_an_end_end_the_connection() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let request = request(&edge);
    // A field of its own in each, which no table knows.
    let field = [&[0x00, 1, b'x', 100], [b'x'; 100].as_slice()].concat();
    for payload in [field.as_slice(), &[]] {
        let mut flood = frame(HEADERS, END_STREAM, 1, &request);
        for _ in 0..10_000 {
            flood.extend(frame(CONTINUATION, 0, 1, payload));
        }
        let error = last_word(&edge, &flood).await;
        assert_ne!(error, [0; 4]);
    }
    ordinary.stop("HTTP/2 CONTINUATION flood").await;
}
