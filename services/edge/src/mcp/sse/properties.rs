//! Events parse back to the messages that were written, whatever these contain.

use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value};

use super::{COMMENT, frame, parse_event_id, priming_event};
use crate::mcp::wire;

/// An event as a client parses it.
#[derive(Debug, PartialEq, Eq)]
struct ParsedEvent {
    id: String,
    kind: String,
    data: String,
}

/// Parses a stream as a browser does (WHATWG HTML, section 9.2.6): CR, LF and CRLF end lines, an id
/// with NUL is ignored, and so is an event without a data field.
fn parse(stream: &str) -> Vec<ParsedEvent> {
    let (mut events, mut id, mut kind, mut data) =
        (Vec::new(), String::new(), String::new(), String::new());
    for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if data.pop() == Some('\n') {
                    let (kind, data) = (std::mem::take(&mut kind), std::mem::take(&mut data));
                    events.push(ParsedEvent { id: id.clone(), kind, data });
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

/// Texts that could end a line or an event, start another, or are long.
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
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(100)
    })]

    #[test]
    fn events_parse_back_to_the_written_messages(
        messages in vec((text(), json()), 1..5),
        stream in any::<u64>(),
    ) {
        let mut text = priming_event(stream).to_vec();
        for (number, (method, params)) in (1..).zip(&messages) {
            text.extend_from_slice(&COMMENT);
            let message = wire::notification(method, Some(params));
            text.extend_from_slice(&frame(Some(stream), number, &message));
        }
        let events = parse(std::str::from_utf8(&text).unwrap());
        prop_assert_eq!(events.len(), 1 + messages.len());
        // The first event has an id alone (SEP-1699).
        prop_assert_eq!(parse_event_id(&events[0].id), Some((stream, 0)));
        prop_assert_eq!(events[0].data.as_str(), "");
        for (number, (event, (method, params))) in (1..).zip(events[1..].iter().zip(&messages)) {
            let message: Value = serde_json::from_str(&event.data).unwrap();
            prop_assert_eq!(&message["method"], method);
            prop_assert_eq!(message.get("params").unwrap_or(&Value::Null), params);
            prop_assert_eq!(&event.kind, "message");
            prop_assert_eq!(parse_event_id(&event.id), Some((stream, number)));
        }
    }
}

#[test]
fn the_parser_of_these_tests_ends_lines_and_events_as_browsers_do() {
    let events = parse("data: a\ndata:b\r\n\rid: 1\0\n\n:x\rid: 2\rdata\r\r");
    let read: Vec<_> =
        events.iter().map(|event| (event.id.as_str(), event.data.as_str())).collect();
    assert_eq!(read, [("", "a\nb"), ("2", "")]);
}
