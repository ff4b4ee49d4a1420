//! Checks the framing of HTTP/1.1 requests, as strictly as RFC 9112 allows. hyper accepts a bare LF
//! as the end of a line and a Content-Length next to a Transfer-Encoding; a proxy in front of it
//! may not, and then one of them reads two requests in one (request smuggling).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// How much of a line is stored for the check, in bytes.
const LINE_BYTES: usize = 64;
/// The first line of an HTTP/2 connection (RFC 9113 section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// Whether the framing of a connection was broken. Later bytes are not checked, and no further
/// request is handled.
#[derive(Clone, Debug, Default)]
pub(super) struct BrokenFraming(Arc<AtomicBool>);

impl BrokenFraming {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tracks the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// The start of the current line, without its end.
    line: Vec<u8>,
    /// The length of the line.
    length: usize,
    last: u8,
    head: Head,
    broken: BrokenFraming,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    Trailers,
    /// HTTP/2, or what hyper rejects itself.
    Unchecked,
}

#[derive(Debug, Default)]
struct Head {
    lines: usize,
    content_length: Option<u64>,
    is_chunked: bool,
}

impl Framing {
    pub(super) fn new(broken: BrokenFraming) -> Self {
        Self { broken, ..Self::default() }
    }

    /// Checks received bytes.
    pub(super) fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = match &mut self.state {
                State::Unchecked => return,
                State::Body(left) | State::ChunkData(left) => {
                    let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= used as u64;
                    if *left == 0 {
                        let was_chunk = matches!(self.state, State::ChunkData(_));
                        self.state = if was_chunk { State::ChunkSize } else { State::Head };
                    }
                    used
                }
                State::Head | State::ChunkSize | State::Trailers => self.read_line(bytes),
            };
            bytes = &bytes[used..];
        }
    }

    /// Reads to the end of a line, or all bytes. Returns how many bytes were read.
    fn read_line(&mut self, bytes: &[u8]) -> usize {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let stored = part.len().min(LINE_BYTES - self.line.len());
        self.line.extend_from_slice(&part[..stored]);
        self.length += part.len();
        self.last = part.last().copied().unwrap_or(self.last);
        let Some(end) = end else { return bytes.len() };
        let has_crlf = self.length > 0 && self.last == b'\r';
        if !has_crlf || !self.end_line() {
            self.broken.0.store(true, Ordering::Relaxed);
            self.state = State::Unchecked;
        }
        self.line.clear();
        (self.length, self.last) = (0, 0);
        end + 1
    }

    /// Handles a line with a valid end. Returns whether the line is allowed here.
    fn end_line(&mut self) -> bool {
        let is_whole = self.length <= LINE_BYTES;
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        match self.state {
            State::Head if line.is_empty() => return self.end_head(),
            State::Head => {
                if self.head.lines == 0 && line == HTTP2 {
                    self.state = State::Unchecked;
                    return true;
                }
                self.head.lines += 1;
                return self.head.read(line, is_whole);
            }
            State::ChunkSize if line.is_empty() => {} // The end of the previous chunk.
            State::ChunkSize => {
                let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next();
                let size = digits.and_then(|digits| std::str::from_utf8(digits).ok());
                match size.and_then(|size| u64::from_str_radix(size, 16).ok()) {
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::ChunkData(size),
                    None => self.state = State::Unchecked,
                }
            }
            State::Trailers if line.is_empty() => self.state = State::Head,
            _ => {}
        }
        true
    }

    fn end_head(&mut self) -> bool {
        let head = std::mem::take(&mut self.head);
        self.state = match (head.is_chunked, head.content_length) {
            // RFC 9112 section 6.3: "ought to be handled as an error".
            (true, Some(_)) => return false,
            (true, None) => State::ChunkSize,
            (false, None | Some(0)) => State::Head,
            (false, Some(length)) => State::Body(length),
        };
        true
    }
}

impl Head {
    /// Parses a header that concerns the body.
    fn read(&mut self, line: &[u8], is_whole: bool) -> bool {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return true };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let is_number = value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| is_number);
            let length = text.and_then(|value| value.parse().ok());
            self.content_length = length;
            return is_whole && length.is_some();
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
            return is_whole;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks bytes in parts of several sizes.
    fn check(request: &str, passes: bool) {
        for size in [1, 2, 3, 7, request.len()] {
            let mut framing = Framing::default();
            for part in request.as_bytes().chunks(size) {
                framing.check(part);
            }
            assert_eq!(!framing.broken.is_set(), passes, "{size}: {request:?}");
        }
    }

    #[test]
    fn consecutive_valid_requests_pass() {
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let body = "POST / HTTP/1.1\r\nhost: x\r\nCONTENT-LENGTH: 4\r\n\r\na\nb\n";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                       4;x=y\r\na\nb\n\r\n0\r\nT: 1\r\n\r\n";
        for request in [get, body, chunked] {
            for next in [get, body, chunked] {
                check(&format!("{request}{next}{get}"), true);
            }
        }
        check(&format!("\r\n{get}"), true);
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\n", true);
        check(&format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1000)), true);
    }

    #[test]
    fn ambiguous_framing_is_rejected() {
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for request in [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\nabcd",
            "POST / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\nabcd",
            &format!("POST / HTTP/1.1\r\nContent-Length:{}4\r\n\r\nabcd", " ".repeat(100)),
        ] {
            check(request, false);
            check(&format!("{get}{request}"), false);
        }
    }
}
