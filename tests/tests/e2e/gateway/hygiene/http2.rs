//! Floods of HTTP/2 frames (RFC 9113).

use drawbridge_tests::{Edge, TestMesh};
use tokio::io::AsyncWriteExt as _;

use super::{Ordinary, connect, read_to_close};

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

/// The header block of `GET /` to this edge, encoded with HPACK's static table.
fn request(edge: &Edge) -> Vec<u8> {
    let host = edge.hosted.running.address.to_string();
    let length = u8::try_from(host.len()).expect("a short name");
    [&[0x82, 0x86, 0x84, 0x41, length], host.as_bytes()].concat()
}

/// Sends these frames and returns the error code of the edge's GOAWAY.
async fn goaway_code(edge: &Edge, frames: &[u8]) -> [u8; 4] {
    let (mut reading, mut writing) = connect(edge).await.into_split();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    // The server may close before all frames are sent.
    let writing = tokio::spawn(async move { writing.write_all(&bytes).await.map(|()| writing) });
    let bytes = read_to_close(&mut reading).await;
    writing.abort();
    let (mut remaining, mut error) = (bytes.as_slice(), None);
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = remaining {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("a length");
        let (payload, next) = payload.split_at(length.min(payload.len()));
        if *kind == GOAWAY {
            error = payload.get(4..8).and_then(|code| code.try_into().ok());
        }
        remaining = next;
    }
    error.unwrap_or_else(|| panic!("the connection ended without GOAWAY: {bytes:?}"))
}

#[tokio::test]
async fn a_rapid_reset_flood_closes_the_connection() {
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
        assert_eq!(goaway_code(&edge, &burst).await, ENHANCE_YOUR_CALM);
    }
    ordinary.stop("HTTP/2 rapid reset, 20 × 10,000 streams").await;
}

#[tokio::test]
async fn a_continuation_flood_closes_the_connection() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let ordinary = Ordinary::start(&mesh, &edge).await;
    let request = request(&edge);
    // A literal field, which is not in any HPACK table.
    let field = [&[0x00, 1, b'x', 100], [b'x'; 100].as_slice()].concat();
    for payload in [field.as_slice(), &[]] {
        let mut flood = frame(HEADERS, END_STREAM, 1, &request);
        for _ in 0..10_000 {
            flood.extend(frame(CONTINUATION, 0, 1, payload));
        }
        let error = goaway_code(&edge, &flood).await;
        assert_ne!(error, [0; 4]);
    }
    ordinary.stop("HTTP/2 CONTINUATION flood").await;
}
