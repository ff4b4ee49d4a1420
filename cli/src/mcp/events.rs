//! The messages of a response: one, or a stream of events.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The largest event, in bytes.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The messages of a response.
pub(super) struct Events {
    stream: Option<reqwest::Response>,
    buffer: Vec<u8>,
    messages: VecDeque<Value>,
}

impl Events {
    pub(super) fn one(message: Value) -> Self {
        Self { stream: None, buffer: Vec::new(), messages: [message].into() }
    }

    pub(super) fn stream(response: reqwest::Response) -> Self {
        Self { stream: Some(response), buffer: Vec::new(), messages: VecDeque::new() }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            let Some(stream) = &mut self.stream else { return Ok(None) };
            let chunk = stream.chunk().await.map_err(reqwest::Error::without_url);
            let Some(chunk) = chunk.context("the response ended early")? else { return Ok(None) };
            self.buffer.extend_from_slice(&chunk);
            ensure!(self.buffer.len() <= EVENT_BYTES_MAX, "an event is too large");
            self.messages.extend(parse(&mut self.buffer)?);
        }
    }
}

/// Takes the complete events out of a buffer. An event without data is a keep-alive.
fn parse(buffer: &mut Vec<u8>) -> anyhow::Result<Vec<Value>> {
    let end = buffer.windows(2).rposition(|pair| pair == b"\n\n" || pair == b"\r\r");
    let end = end
        .map(|at| at + 2)
        .max(buffer.windows(4).rposition(|four| four == b"\r\n\r\n").map(|at| at + 4));
    let Some(end) = end else { return Ok(Vec::new()) };
    let complete: Vec<u8> = buffer.drain(..end).collect();
    let complete = String::from_utf8(complete).context("an event is not UTF-8")?;
    let (mut messages, mut data) = (Vec::new(), String::new());
    for line in complete.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
        if let Some(value) = line.strip_prefix("data:") {
            data.push_str(value.strip_prefix(' ').unwrap_or(value));
            data.push('\n');
        } else if line.is_empty() && !data.trim().is_empty() {
            messages.push(serde_json::from_str(&data).context("an event is not JSON")?);
            data.clear();
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_parsed_when_they_are_complete() {
        let mut buffer = b": keep-alive\n\nid: 1\ndata: {\"a\":\ndata: 1}\n\ndata:{\"b\"".to_vec();
        assert_eq!(parse(&mut buffer).unwrap(), [json!({ "a": 1 })]);
        assert_eq!(buffer, b"data:{\"b\"");
        buffer.extend_from_slice(b":2}\r\n\r\nid: 2\r\ndata:\r\n\r\n");
        assert_eq!(parse(&mut buffer).unwrap(), [json!({ "b": 2 })]);
        assert!(buffer.is_empty());
        assert!(parse(&mut b"data: {\n\n".to_vec()).is_err());
    }
}
