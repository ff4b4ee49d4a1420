//! The kinds of files that an operator writes.

use std::{collections::BTreeSet, path::Path};

use clap::builder::{PossibleValue, PossibleValuesParser};
use drawbridge_auth::policy::bundle::TrustedKeys;
use drawbridge_config::{
    ConfigError, ConfigText, Namespace, edge::EdgeFile, issuers::IssuersFile, policy,
    policy_keys::PolicyKeysFile, setup, users::UsersFile,
};
use drawbridge_edge::{CatalogLock, LOCK_BYTES_MAX};
use schemars::{JsonSchema, Schema};

/// A kind of file.
pub(super) struct FileKind {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What the file is.
    pub(super) about: &'static str,
    /// How its path may end. `*` is any text without `/`.
    ends: &'static [&'static str],
    pub(super) check: fn(&ConfigText, &CheckContext) -> Result<(), ConfigError>,
    /// Absent: a machine writes it.
    pub(super) schema: Option<fn() -> Schema>,
    /// The largest file, in bytes. Absent: that of all files.
    bytes_max: Option<u64>,
}

/// What a check depends on besides the file.
#[derive(Debug, Default)]
pub(super) struct CheckContext {
    /// The tool services that flags of the edge name.
    pub(super) services: Vec<Namespace>,
}

pub(super) const KINDS: &[FileKind] = &[
    FileKind {
        name: "edge",
        about: "the edge's config file",
        ends: &["edge.toml"],
        check: |text, context| drawbridge_edge::check_config(text, &context.services),
        schema: Some(schema::<EdgeFile>),
        bytes_max: None,
    },
    FileKind {
        name: "issuers",
        about: "the issuers whose access tokens auth accepts",
        ends: &["issuers.toml"],
        check: |text, _| drawbridge_auth::check_issuers(text),
        schema: Some(schema::<IssuersFile>),
        bytes_max: None,
    },
    FileKind {
        name: "users",
        about: "the users of the development authorization server; no error quotes it",
        ends: &["users.toml"],
        check: |text, _| drawbridge_idp::check_users(text).map(drop),
        schema: Some(schema::<UsersFile>),
        bytes_max: None,
    },
    FileKind {
        name: "setup",
        about: "the setup of the Vault for tool services",
        ends: &["setup.toml"],
        check: |text, _| setup::read(text).map(drop),
        schema: Some(schema::<setup::Setup>),
        bytes_max: None,
    },
    FileKind {
        name: "members",
        about: "groups and roles that tokens do not carry: `entities/*.json` of a policy folder",
        ends: &["entities/*.json"],
        check: |text, _| policy::read_members(text).map(drop),
        schema: Some(schema::<policy::Members>),
        bytes_max: Some(policy::FILE_BYTES_MAX),
    },
    FileKind {
        name: "cases",
        about: "tests of policies: `tests/*.json` of a policy folder",
        ends: &["tests/*.json"],
        check: |text, _| policy::read_cases(text).map(drop),
        schema: Some(schema::<policy::Cases>),
        bytes_max: Some(policy::FILE_BYTES_MAX),
    },
    FileKind {
        name: "policy-keys",
        about: "the public keys that sign policy bundles",
        ends: &["policy-keys.toml"],
        check: |text, _| TrustedKeys::parse(text).map(drop),
        schema: Some(schema::<PolicyKeysFile>),
        bytes_max: None,
    },
    FileKind {
        name: "catalog-lock",
        about: "the catalog lock, which `drawbridge catalog lock` writes",
        ends: &[".lock"],
        check: |text, _| CatalogLock::parse(text).map(drop),
        schema: None,
        bytes_max: Some(LOCK_BYTES_MAX),
    },
];

/// The JSON Schema (2020-12) of a type.
fn schema<T: JsonSchema>() -> Schema {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

impl FileKind {
    /// The kind with this name.
    pub(super) fn named(name: &str) -> Result<&'static Self, String> {
        KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            format!("unknown kind of file (expected one of {})", names.join(", "))
        })
    }

    /// The names and descriptions of all kinds, for the command line.
    pub(super) fn names() -> PossibleValuesParser {
        KINDS.iter().map(|kind| PossibleValue::new(kind.name).help(kind.about)).into()
    }

    /// Reads a file of this kind.
    pub(super) fn read(&self, path: &Path) -> Result<ConfigText, ConfigError> {
        match self.bytes_max {
            Some(bytes_max) => ConfigText::read_within(path, bytes_max),
            None => ConfigText::read(path),
        }
    }

    /// The kind of a file by its name or, where that says nothing, by the keys at its top level.
    pub(super) fn of(path: &Path) -> Result<Option<&'static Self>, ConfigError> {
        let name = path.to_string_lossy();
        if let Some(kind) = KINDS.iter().find(|kind| kind.ends.iter().any(|end| is_end(&name, end)))
        {
            return Ok(Some(kind));
        }
        let text = ConfigText::read(path)?;
        let keys = text.top_level_keys();
        let shared = |kind: &Self| kind.keys().intersection(&keys).count();
        let best = KINDS.iter().map(shared).max().unwrap_or(0);
        let mut candidates = KINDS.iter().filter(|kind| best > 0 && shared(kind) == best);
        let found = candidates.next();
        // Of two kinds that are equally likely, neither is chosen.
        Ok(found.filter(|_| candidates.next().is_none()))
    }

    /// The keys that its schema has at the top level.
    fn keys(&self) -> BTreeSet<String> {
        let schema = self.schema.map(|schema| schema());
        let schema = schema.as_ref().map(Schema::as_value);
        // A list has those of its items.
        let item = schema.and_then(|schema| schema.pointer("/items/$ref")?.as_str());
        let item = item.and_then(|item| schema?.pointer(item.trim_start_matches('#')));
        let properties = item.or(schema).and_then(|schema| schema.get("properties"));
        let properties = properties.and_then(|properties| properties.as_object());
        properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
    }
}

/// Whether a path ends as a pattern does.
fn is_end(path: &str, end: &str) -> bool {
    match end.split_once('*') {
        None => path.ends_with(end),
        Some((folder, suffix)) => path.strip_suffix(suffix).is_some_and(|rest| {
            let name = rest.rfind('/').map_or(0, |slash| slash + 1);
            rest[..name].ends_with(folder)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_file_follows_from_its_name_or_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            FileKind::of(&path).unwrap().map(|kind| kind.name)
        };
        assert_eq!(kind("my-edge.toml", ""), Some("edge"));
        assert_eq!(kind("catalog.lock", ""), Some("catalog-lock"));
        assert_eq!(kind("a.toml", "[[limit]]\nname = 5\n[cache\n"), Some("edge"));
        assert_eq!(kind("b.toml", "[[users]]\nusername = \"a\"\n"), Some("users"));
        assert_eq!(kind("c.toml", "jwks_url = \"https://a\"\n"), Some("setup"));
        assert_eq!(kind("d.toml", "[other]\n"), None);
        let case = r#"[{ "name": "a", "action": "b", "expect": "deny" }]"#;
        assert_eq!(kind("a.json", case), Some("cases"));
        let group = r#"[{ "uid": { "type": "Group", "id": "a" }, "parents": [] }]"#;
        assert_eq!(kind("b.json", group), Some("members"));
        std::fs::create_dir(folder.path().join("entities")).unwrap();
        assert_eq!(kind("entities/groups.json", "["), Some("members"));
        assert_eq!(kind("groups.json", "["), None);
    }
}
