//! Where a list goes on (MCP's pagination).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::Value;

/// The most items that one page shows.
pub(crate) const PAGE_ITEMS_MAX: usize = 200;
/// The longest cursor that is read, in bytes. Tokens of services are in it.
const CURSOR_BYTES_MAX: usize = 8 * 1024;
/// Begins a cursor into what a service lists. No name has it.
const LISTED: char = '\n';

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    Start,
    /// After the item of this name.
    After(String),
    /// In what exists of the resource template of this name, at this token of its service.
    Listed {
        template: String,
        token: String,
    },
}

impl Cursor {
    /// Where a request wants to go on. None: its cursor is not one.
    pub(crate) fn of(params: &Value) -> Option<Self> {
        let text = match params.get("cursor") {
            None | Some(Value::Null) => return Some(Self::Start),
            Some(cursor) => cursor.as_str().filter(|text| text.len() <= CURSOR_BYTES_MAX)?,
        };
        let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
        let Some(listed) = text.strip_prefix(LISTED) else { return Some(Self::After(text)) };
        let (template, token) = listed.split_once(LISTED)?;
        Some(Self::Listed { template: template.to_owned(), token: token.to_owned() })
    }

    /// As a client gets it. None: nothing comes before, or it would be longer than what is read.
    pub(crate) fn text(&self) -> Option<String> {
        let text = match self {
            Self::Start => return None,
            Self::After(name) => BASE64.encode(name),
            Self::Listed { template, token } => {
                BASE64.encode(format!("{LISTED}{template}{LISTED}{token}"))
            }
        };
        Some(text).filter(|text| text.len() <= CURSOR_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let listed = |template: &str, token: &str| Cursor::Listed {
            template: template.to_owned(),
            token: token.to_owned(),
        };
        for cursor in [
            Cursor::Start,
            Cursor::After("a_b".to_owned()),
            listed("invoices_invoice", ""),
            listed("invoices_invoice", "a\nb"),
        ] {
            assert_eq!(Cursor::of(&json!({ "cursor": cursor.text() })), Some(cursor));
        }
        assert_eq!(listed("x", &"t".repeat(CURSOR_BYTES_MAX)).text(), None);
        for wrong in [json!("!"), json!(7), json!(BASE64.encode("\nx")), json!("A".repeat(9000))] {
            assert_eq!(Cursor::of(&json!({ "cursor": wrong })), None, "{wrong}");
        }
    }
}
