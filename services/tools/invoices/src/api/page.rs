//! Page tokens of a search: the id of the last invoice of a page. A token is opaque to callers and
//! grants no access: visibility does not depend on it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::error::InvoiceError;

pub(super) fn write(id: &str) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(Uuid::parse_str(id).ok()?))
}

pub(super) fn read(token: &str) -> Result<String, InvoiceError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let id = bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok()).map(|id| id.to_string());
    id.ok_or(InvoiceError::Argument {
        field: "page_token",
        problem: "is not a page token of a search",
    })
}
