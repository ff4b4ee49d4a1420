//! Derives names of items from names of methods.

/// Converts a method's name to snake case. A run of capitals is one part, which ends before a
/// capital that starts the next one: `GetHTTPStatus` is `get_http_status`. A single small letter
/// belongs to the run: `ListIPv4`, `ListURLs`.
pub(super) fn snake_case(name: &str) -> String {
    let letters = name.as_bytes();
    let is_small = |at: usize| letters.get(at).is_some_and(u8::is_ascii_lowercase);
    let mut text = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let previous = at.checked_sub(1).map_or(b'_', |before| letters[before]);
        let begins_word = match previous {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'A'..=b'Z' => is_small(at + 1) && is_small(at + 2),
            _ => false,
        };
        if letter.is_ascii_uppercase() && begins_word {
            text.push('_');
        }
        // INVARIANT: protobuf's names are ASCII.
        text.push(char::from(letter.to_ascii_lowercase()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_name_becomes_snake_case() {
        for (name, snake) in [
            ("Search", "search"),
            ("ListFiles", "list_files"),
            ("GetV2Thing", "get_v2_thing"),
            ("ReadURL", "read_url"),
            ("GetHTTPStatus", "get_http_status"),
            ("HTTPGet", "http_get"),
            ("ListHTTP2Streams", "list_http2_streams"),
            ("GetS3URL", "get_s3_url"),
            ("ListURLs", "list_urls"),
            ("ListIPv4Routes", "list_ipv4_routes"),
            ("already_snake", "already_snake"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }
}
