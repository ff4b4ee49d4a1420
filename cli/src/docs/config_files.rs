//! The kinds of config files.

use super::{SCHEMAS, table};
use crate::config;

pub(super) fn parts() -> impl Iterator<Item = (String, String)> {
    let folder = SCHEMAS.trim_start_matches("reference/");
    let rows = config::kinds().map(|(kind, about, schema)| {
        let link = schema.map_or_else(String::new, |name| format!("[{name}]({folder}/{name})"));
        [format!("`{kind}`"), about.to_owned(), link]
    });
    [("config files".to_owned(), table(["kind", "file", "schema"], rows))].into_iter()
}
