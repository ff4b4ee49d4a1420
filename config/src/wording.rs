//! Errors of serde in the terms of the file's syntax.

use std::ops::Range;

use crate::{
    ConfigText,
    found::Found,
    suggest::{closest, quoted_names},
};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    Toml,
    Json,
}

/// A mistake, and the key that was probably meant.
pub(crate) struct Described {
    pub(crate) found: Found,
    pub(crate) suggested: Option<String>,
}

/// Describes an error of serde, because of which this key was removed.
pub(crate) fn describe(
    text: &ConfigText,
    syntax: Syntax,
    span: Range<usize>,
    message: &str,
    removed: Option<&str>,
) -> Described {
    let message = message.trim_end();
    let names = quoted_names(message);
    let suggested = match names.split_first() {
        Some((name, expected)) if message.starts_with("unknown ") => {
            closest(name, expected.iter().copied())
        }
        _ => None,
    };
    let is_header = syntax == Syntax::Toml
        && text.as_str().get(span.clone()).is_some_and(|text| text.starts_with('['));
    let header = |form: (&str, &str)| {
        let key = removed?;
        is_header.then(|| format!("write `{}{key}{}`", form.0, form.1))
    };
    let help = match message {
        "invalid type: map, expected a sequence" => header(("[[", "]]")),
        _ if message.starts_with("invalid type: sequence, expected struct ") => header(("[", "]")),
        _ => suggested.map(|name| format!("did you mean `{name}`?")),
    };
    let problem = reword(message, syntax, text.has_secrets());
    let suggested = suggested.map(str::to_owned);
    Described { found: Found { span, problem, help }, suggested }
}

/// A message of serde in the terms of TOML. What a file with secrets has in place of the expected
/// is left out.
fn reword(message: &str, syntax: Syntax, has_secrets: bool) -> String {
    let table = match syntax {
        Syntax::Toml => "a table",
        Syntax::Json => "an object",
    };
    let relative_url = message.strip_prefix("relative URL without a base: ").map(|found| {
        format!("invalid value: {found}, expected a URL with a scheme, such as `https://…`")
    });
    let message = relative_url.as_deref().unwrap_or(message);
    let rest = ["invalid type: ", "invalid value: "];
    let rest = rest.iter().find_map(|prefix| message.strip_prefix(prefix));
    if let Some((found, expected)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) {
        let expected = match expected {
            "a sequence" => "an array",
            "a map" => table,
            "a nonzero u32" => "a whole number from 1",
            "a boolean" => "`true` or `false`",
            "u8" | "u16" | "u32" | "u64" | "usize" | "i64" | "i128" => "a whole number",
            _ if expected.starts_with("struct ") => table,
            _ => expected,
        };
        let found = match found {
            "map" => table,
            "sequence" => "an array",
            _ => found,
        };
        return if has_secrets {
            format!("expected {expected}")
        } else {
            format!("expected {expected}, found {found}")
        };
    }
    match message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", ")) {
        Some((_, expected)) if has_secrets => format!("unknown variant, {expected}"),
        _ => message.to_owned(),
    }
}
