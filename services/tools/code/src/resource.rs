//! A source file as an MCP resource.

use std::{ffi::OsStr, path::Path};

use drawbridge_proto::mcp::v1::{ResourceContents, resource_contents::Contents};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// What is escaped in a name: all but the characters of a URI's path (RFC 3986 section 3.3). `:` and
/// `@` are escaped too, because the first name is in the position of the authority.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');
/// The media type of text without a known extension.
const PLAIN_TEXT: &str = "text/plain";

/// The resource at `path`. Invalid UTF-8 is replaced.
pub(crate) fn resource(path: &Path, contents: Vec<u8>) -> ResourceContents {
    let text = String::from_utf8(contents)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    ResourceContents {
        uri: uri(path),
        mime_type: media_type(path),
        contents: Some(Contents::Text(text)),
    }
}

fn uri(path: &Path) -> String {
    let encode = |name: &OsStr| percent_encode(name.as_encoded_bytes(), ESCAPED).to_string();
    let names: Vec<_> = path.iter().map(encode).collect();
    format!("code://{}", names.join("/"))
}

/// The media type of the name's extension if it is a kind of text: `.ts` is also a video format.
fn media_type(path: &Path) -> String {
    let guess = mime_guess::from_path(path).first_raw().unwrap_or(PLAIN_TEXT);
    let is_text = guess.starts_with("text/")
        || guess.ends_with("+xml")
        || guess.ends_with("+json")
        || matches!(guess, "application/json" | "application/xml" | "application/javascript");
    if is_text { guess } else { PLAIN_TEXT }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_contains_only_valid_characters() {
        for (path, expected) in [
            ("src/main.rs", "code://src/main.rs"),
            ("a b/c?d#e%f", "code://a%20b/c%3Fd%23e%25f"),
            ("host:80/u@x", "code://host%3A80/u%40x"),
            ("ä/(x)+[y].md", "code://%C3%A4/(x)+%5By%5D.md"),
        ] {
            assert_eq!(uri(Path::new(path)), expected);
            assert!(url::Url::parse(expected).is_ok(), "{expected}");
        }
    }

    #[test]
    fn the_media_type_is_a_kind_of_text() {
        for (path, expected) in [
            ("main.rs", "text/x-rust"),
            ("page.html", "text/html"),
            ("package.json", "application/json"),
            ("logo.svg", "image/svg+xml"),
            ("app.ts", "text/plain"),
            ("photo.png", "text/plain"),
            ("Makefile", "text/plain"),
        ] {
            assert_eq!(media_type(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn invalid_utf8_in_a_file_is_replaced() {
        let resource = resource(Path::new("a"), b"gr\xfc\xdfe\r\n".to_vec());
        assert_eq!(resource.contents, Some(Contents::Text("gr\u{fffd}\u{fffd}e\r\n".to_owned())));
    }
}
