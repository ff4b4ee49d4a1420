//! What is written as events is read back as it was, whatever the messages hold.

use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value};

use super::{COMMENT, event_id, frame, priming};
use crate::mcp::wire;

/// An event as a client has it.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    id: String,
    kind: String,
    data: String,
}

/// Reads a stream as a browser does (WHATWG HTML, section 9.2.6): CR, LF and CRLF end lines, NUL makes an id none,
/// and an event without a field of data is none.
fn received(stream: &str) -> Vec<Received> {
    let (mut events, mut id, mut kind, mut data) =
        (Vec::new(), String::new(), String::new(), String::new());
    for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if data.pop() == Some('\n') {
                    let (kind, data) = (std::mem::take(&mut kind), std::mem::take(&mut data));
                    events.push(Received { id: id.clone(), kind, data });
                }
                kind.clear();
                data.clear();
            }
            "event" => value.clone_into(&mut kind),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            _ => {}
        }
    }
    events
}

/// Texts that could end a line or an event, begin another, or be long.
fn text() -> impl Strategy<Value = String> {
    let odd = [
        "\n",
        "\r",
        "\r\n\r\n",
        "\n\ndata: {}\n\n",
        "\u{0}",
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{feff}",
    ];
    prop_oneof![
        20 => any::<String>(),
        20 => vec(proptest::sample::select(odd.to_vec()), 0..8).prop_map(|parts| parts.concat()),
        1 => (0..50_000_usize).prop_map(|times| "\n\u{2028}x".repeat(times)),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((text(), inner), 0..6).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn events_are_read_back_as_they_were_written(
        messages in vec((text(), json()), 1..5),
        stream in any::<u64>(),
    ) {
        let mut text = priming(stream).to_vec();
        for (number, (method, params)) in (1..).zip(&messages) {
            text.extend_from_slice(&COMMENT);
            text.extend_from_slice(&frame(Some(stream), number, &wire::notification(method, Some(params))));
        }
        let events = received(std::str::from_utf8(&text).unwrap());
        prop_assert_eq!(events.len(), 1 + messages.len());
        // The first names the place alone (SEP-1699).
        prop_assert_eq!((event_id(&events[0].id), events[0].data.as_str()), (Some((stream, 0)), ""));
        for (number, (event, (method, params))) in (1..).zip(events[1..].iter().zip(&messages)) {
            let message: Value = serde_json::from_str(&event.data).unwrap();
            prop_assert_eq!(&message["method"], method);
            prop_assert_eq!(message.get("params").unwrap_or(&Value::Null), params);
            prop_assert_eq!(&event.kind, "message");
            prop_assert_eq!(event_id(&event.id), Some((stream, number)));
        }
    }
}

#[test]
fn the_reader_of_these_tests_ends_lines_and_events_as_browsers_do() {
    let events = received("data: a\ndata:b\r\n\rid: 1\0\n\n:x\rid: 2\rdata\r\r");
    let read: Vec<_> =
        events.iter().map(|event| (event.id.as_str(), event.data.as_str())).collect();
    assert_eq!(read, [("", "a\nb"), ("2", "")]);
}
