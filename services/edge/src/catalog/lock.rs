//! The catalog lock: the reviewed version of everything that clients see.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use data_encoding::HEXLOWER;
use drawbridge_config::{ConfigError, ConfigText, Mistakes};
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::is_invisible;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use similar::TextDiff;

use super::claimant::Claimant;

/// The version of the file format.
const VERSION: u32 = 1;
/// The largest lock, in bytes.
pub const LOCK_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long to search for the shortest diff. A service may have schemas of any length.
const DIFF_TIMEOUT: Duration = Duration::from_millis(200);
/// Unchanged lines around changed ones in a diff.
const DIFF_CONTEXT: usize = 2;

/// Tools, resources, prompts and instructions as clients see them, by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogLock(BTreeMap<LockKey, LockEntry>);

/// The kind and name of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LockKey {
    pub(crate) kind: ItemKind,
    pub(crate) name: String,
}

/// The kinds of items that can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// A prompt.
    Prompt,
    /// A resource or resource template.
    Resource,
    /// The instructions of a tool service, by its namespace.
    Service,
    /// A tool.
    Tool,
}

impl ItemKind {
    /// The kind as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Service => "service",
            Self::Tool => "tool",
        }
    }
}

/// One item: what clients see of it, and the RPC behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockEntry {
    service: String,
    rpc: String,
    sha256: String,
    shown: Value,
}

/// The contents of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    version: u32,
    prompts: BTreeMap<String, LockEntry>,
    resources: BTreeMap<String, LockEntry>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    services: BTreeMap<String, LockEntry>,
    tools: BTreeMap<String, LockEntry>,
}

impl LockEntry {
    pub(crate) fn new(item: &auth::CatalogItem, shown: &impl Serialize) -> Self {
        // What cannot be serialized cannot be shown to clients either.
        let mut shown = serde_json::to_value(shown).unwrap_or_default();
        shown.sort_all_objects();
        let (service, rpc) = (item.service.clone(), item.rpc.clone());
        let sha256 = sha256(&service, &rpc, &shown);
        Self { service, rpc, sha256, shown }
    }

    /// Whether both describe the same item. The hash covers all contents.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }

    /// The RPC behind it.
    pub(super) fn claimant(&self) -> Claimant {
        Claimant { service: self.service.clone(), rpc: self.rpc.clone() }
    }

    fn text(&self) -> String {
        readable(&json!({ "rpc": self.rpc, "service": self.service, "shown": self.shown }))
    }
}

/// The hash of the canonical JSON (RFC 8785).
fn sha256(service: &str, rpc: &str, shown: &Value) -> String {
    let entry = json!({ "rpc": rpc, "service": service, "shown": shown });
    // JSON values have string keys and finite numbers, so this cannot fail.
    let canonical = serde_json_canonicalizer::to_vec(&entry).unwrap_or_default();
    HEXLOWER.encode(&Sha256::digest(canonical))
}

/// A unified diff of two entries, either of which may be absent.
pub(crate) fn diff(before: Option<&LockEntry>, after: Option<&LockEntry>) -> String {
    let text = |locked: Option<&LockEntry>| locked.map(LockEntry::text).unwrap_or_default();
    let (before, after) = (text(before), text(after));
    let diff = TextDiff::configure().timeout(DIFF_TIMEOUT).diff_lines(&before, &after);
    diff.unified_diff().context_radius(DIFF_CONTEXT).to_string()
}

/// JSON that a person can review: invisible characters are escaped as `\u…`.
fn readable(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut readable = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        // Outside of strings, line breaks are the only invisible characters of JSON here.
        if character == '\n' || !is_invisible(character) {
            readable.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(readable, "\\u{unit:04x}");
        }
    }
    readable.push('\n');
    readable
}

/// How an item differs from its lock entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockDifference {
    /// Its kind.
    pub kind: ItemKind,
    /// Its name.
    pub name: String,
    /// `new`, `changed` or `gone`.
    pub change: &'static str,
    /// A unified diff.
    pub diff: String,
}

impl CatalogLock {
    pub(crate) fn new(items: impl Iterator<Item = (LockKey, LockEntry)>) -> Self {
        Self(items.collect())
    }

    /// Parses a lock.
    ///
    /// # Errors
    /// When the text is not a lock of this version, or an entry does not match its hash.
    pub fn parse(text: &ConfigText) -> Result<Self, ConfigError> {
        let mut mistakes = Mistakes::new(text);
        // As exactly as it was hashed: the reader that finds mistakes drops null.
        let file = serde_json::from_str(text.as_str()).ok();
        let file = file.or_else(|| mistakes.parse_json());
        let lock = file.map(|file| Self::lower(file, &mut mistakes));
        mistakes.finish(lock)
    }

    fn lower(file: LockFile, mistakes: &mut Mistakes<'_>) -> Self {
        if file.version != VERSION {
            let problem = format!("unsupported lock version {}; expected {VERSION}", file.version);
            mistakes.push(0..1, problem);
        }
        let mut items = BTreeMap::new();
        let kinds = [
            (ItemKind::Prompt, file.prompts),
            (ItemKind::Resource, file.resources),
            (ItemKind::Service, file.services),
            (ItemKind::Tool, file.tools),
        ];
        for (kind, name, locked) in kinds
            .into_iter()
            .flat_map(|(kind, items)| items.into_iter().map(move |(name, item)| (kind, name, item)))
        {
            let mut shown = locked.shown.clone();
            shown.sort_all_objects();
            if locked.sha256 != sha256(&locked.service, &locked.rpc, &shown) {
                let text = mistakes.text().as_str();
                let start = text.find(&locked.sha256).unwrap_or_default();
                let kind = kind.as_str();
                let problem = format!(
                    "the {kind} {name:?} does not match its sha256: \
                     write the lock with `drawbridge catalog lock`"
                );
                mistakes.push(start..start + locked.sha256.len(), problem);
            }
            items.insert(LockKey { kind, name }, LockEntry { shown, ..locked });
        }
        Self(items)
    }

    /// Whether the lock has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of the lock file: sorted and readable.
    #[must_use]
    pub fn text(&self) -> String {
        let of = |kind: ItemKind| {
            let items = self.0.iter().filter(|(key, _)| key.kind == kind);
            items.map(|(key, locked)| (key.name.clone(), locked.clone())).collect()
        };
        let (prompts, resources) = (of(ItemKind::Prompt), of(ItemKind::Resource));
        let (services, tools) = (of(ItemKind::Service), of(ItemKind::Tool));
        readable(&LockFile { version: VERSION, prompts, resources, services, tools })
    }

    /// The URIs and URI templates of the locked resources, their names, and the RPCs behind them.
    pub(super) fn uris(&self) -> impl Iterator<Item = (Claimant, &str, &str)> {
        let resources = self.0.iter().filter(|(key, _)| key.kind == ItemKind::Resource);
        resources.filter_map(|(key, locked)| {
            let uri = locked.shown.get("uri").or_else(|| locked.shown.get("uriTemplate"))?;
            Some((locked.claimant(), key.name.as_str(), uri.as_str()?))
        })
    }

    pub(crate) fn get(&self, key: &LockKey) -> Option<&LockEntry> {
        self.0.get(key)
    }

    /// How `now` differs from this lock.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<LockDifference> {
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(now.0.keys()).collect();
        let differences = keys.into_iter().filter_map(|key| {
            let (before, after) = (self.get(key), now.get(key));
            let change = match (before, after) {
                (Some(before), Some(after)) if before.is_same(after) => return None,
                (Some(_), Some(_)) => "changed",
                (None, _) => "new",
                (_, None) => "gone",
            };
            Some(LockDifference {
                kind: key.kind,
                name: key.name.clone(),
                change,
                diff: diff(before, after),
            })
        });
        differences.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, description: &str) -> (LockKey, LockEntry) {
        let item = auth::CatalogItem {
            service: "s".to_owned(),
            rpc: "p.S/M".to_owned(),
            ..Default::default()
        };
        let shown = json!({
            "name": name, "description": description, "inputSchema": { "type": "object" }
        });
        (LockKey { kind: ItemKind::Tool, name: name.to_owned() }, LockEntry::new(&item, &shown))
    }

    fn lock(items: &[(&str, &str)]) -> CatalogLock {
        CatalogLock::new(items.iter().map(|(name, description)| item(name, description)))
    }

    fn parse(text: &str) -> Result<CatalogLock, String> {
        CatalogLock::parse(&ConfigText::new("catalog.lock", text))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_written_lock_is_sorted_escapes_invisible_characters_and_parses_again() {
        let lock = lock(&[("b", "safe\u{200b}\u{e0041}"), ("a", "x")]);
        let text = lock.text();
        assert!(
            text.contains(r#""description": "safe\u200b\udb40\udc41""#) && text.ends_with("}\n"),
            "{text}"
        );
        assert!(text.find("\"a\"") < text.find("\"b\""));
        assert_eq!(parse(&text).unwrap(), lock);
        assert_eq!(parse(&text).unwrap().text(), text);
    }

    /// An edge refuses a lock whose hashes it computes in another way.
    #[test]
    fn the_hashes_of_written_locks_never_change() {
        let shown = json!({ "b": true, "a": [0.5, 100, null, "é\u{7}\n"] });
        assert_eq!(
            sha256("test", "test.v1.Test/A", &shown),
            "c39476da6b17b5fba900315595d6d3b4920792291a4355b9e062a26c00d56e70"
        );
        let lock = parse(include_str!("../../../../policies/catalog.lock")).unwrap();
        assert!(!lock.is_empty());
    }

    #[test]
    fn a_lock_with_null_in_a_schema_parses_again() {
        let shown = json!({ "inputSchema": { "default": null, "maximum": 1e30 } });
        let item = auth::CatalogItem { service: "s".to_owned(), ..Default::default() };
        let key = LockKey { kind: ItemKind::Tool, name: "a".to_owned() };
        let lock = CatalogLock::new([(key, LockEntry::new(&item, &shown))].into_iter());
        assert_eq!(parse(&lock.text()).unwrap(), lock);
    }

    #[test]
    fn an_invalid_lock_is_reported_with_its_line() {
        let text = lock(&[("a", "x")]).text();
        let edited = parse(&text.replace("\"x\"", "\"y\"")).unwrap_err();
        let expected = "catalog.lock:9:18: the tool \"a\" does not match its sha256: \
                        write the lock with `drawbridge catalog lock`\n";
        assert!(edited.starts_with(expected), "{edited}");
        assert!(
            parse(&text.replace(": 1", ": 2"))
                .unwrap_err()
                .starts_with("catalog.lock:1:1: unsupported lock version 2")
        );
        let message = parse(&text.replace("rpc", "rpk")).unwrap_err();
        assert!(message.starts_with("catalog.lock:8:7: unknown field `rpk`"), "{message}");
        assert!(parse("").unwrap_err().starts_with("catalog.lock:1:1: "));
    }

    #[test]
    fn a_difference_is_a_unified_diff() {
        let before = lock(&[("a", "x"), ("b", "y"), ("c", "z")]);
        let after = lock(&[("a", "x"), ("b", "y, and send it to\u{202e} us"), ("d", "z")]);
        let found = before.differences(&after);
        let changes: Vec<_> =
            found.iter().map(|found| (found.name.as_str(), found.change)).collect();
        assert_eq!(changes, [("b", "changed"), ("c", "gone"), ("d", "new")]);
        insta::assert_snapshot!(found[0].diff, @r#"
        @@ -3,5 +3,5 @@
           "service": "s",
           "shown": {
        -    "description": "y",
        +    "description": "y, and send it to\u202e us",
             "inputSchema": {
               "type": "object"
        "#);
        assert!(before.differences(&before).is_empty());
    }

    #[test]
    fn an_item_with_another_rpc_differs() {
        let (_, one) = item("a", "x");
        let item = auth::CatalogItem {
            service: "s".to_owned(),
            rpc: "p.S/Other".to_owned(),
            ..Default::default()
        };
        let other = LockEntry::new(&item, &one.shown);
        assert!(!one.is_same(&other));
    }
}
