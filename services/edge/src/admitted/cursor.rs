//! Cursors of lists (MCP's pagination).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::Value;

/// The most items on one page, except tools.
pub(crate) const PAGE_ITEMS_MAX: usize = 200;
/// The most tools on one page, and the most bytes of their JSON if there is more than one.
pub(crate) const TOOL_PAGE_ITEMS_MAX: usize = 500;
pub(crate) const TOOL_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The longest cursor, in bytes. It may contain the page token of a service.
const CURSOR_BYTES_MAX: usize = 8 * 1024;
/// Begins a cursor into the resources of a template. No item name contains it.
const IN_TEMPLATE: char = '\n';

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    Start,
    /// After the item of this name.
    After(String),
    /// Among the resources of the template of this name, at this page token of its service.
    InTemplate {
        template: String,
        token: String,
    },
}

impl Cursor {
    /// Parses the cursor of a request. `None`: it is not valid.
    pub(crate) fn parse(params: &Value) -> Option<Self> {
        let text = match params.get("cursor") {
            None | Some(Value::Null) => return Some(Self::Start),
            Some(cursor) => cursor.as_str().filter(|text| text.len() <= CURSOR_BYTES_MAX)?,
        };
        let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
        let Some(rest) = text.strip_prefix(IN_TEMPLATE) else { return Some(Self::After(text)) };
        let (template, token) = rest.split_once(IN_TEMPLATE)?;
        Some(Self::InTemplate { template: template.to_owned(), token: token.to_owned() })
    }

    /// Encodes the cursor. `None`: it is the start, or would be too long to be parsed.
    pub(crate) fn encode(&self) -> Option<String> {
        let text = match self {
            Self::Start => return None,
            Self::After(name) => BASE64.encode(name),
            Self::InTemplate { template, token } => {
                BASE64.encode(format!("{IN_TEMPLATE}{template}{IN_TEMPLATE}{token}"))
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
    fn a_cursor_is_parsed_as_it_was_encoded() {
        let in_template = |template: &str, token: &str| Cursor::InTemplate {
            template: template.to_owned(),
            token: token.to_owned(),
        };
        for cursor in [
            Cursor::Start,
            Cursor::After("a_b".to_owned()),
            in_template("invoices_invoice", ""),
            in_template("invoices_invoice", "a\nb"),
        ] {
            assert_eq!(Cursor::parse(&json!({ "cursor": cursor.encode() })), Some(cursor));
        }
        assert_eq!(in_template("x", &"t".repeat(CURSOR_BYTES_MAX)).encode(), None);
        for invalid in [json!("!"), json!(7), json!(BASE64.encode("\nx")), json!("A".repeat(9000))]
        {
            assert_eq!(Cursor::parse(&json!({ "cursor": invalid })), None, "{invalid}");
        }
    }
}
