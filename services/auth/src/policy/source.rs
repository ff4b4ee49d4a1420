//! Policy files and their parsing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet};
use data_encoding::HEXLOWER;
use drawbridge_config::{ConfigText, policy::FILE_BYTES_MAX};
use drawbridge_runtime::{bounded, length_prefixed};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::problem::{PolicyError, Problem};

/// A file of the policy folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicySource {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl PolicySource {
    /// The file as one that an operator writes.
    pub(super) fn config_text(&self) -> ConfigText {
        ConfigText::new(&self.path, self.text.as_str())
    }

    /// The offset and length of a part of this file's JSON, in bytes.
    pub(super) fn span_of(&self, json: &RawValue) -> (usize, usize) {
        // INVARIANT: a raw value parsed from this text is a slice of it.
        let offset = json.get().as_ptr() as usize - self.text.as_ptr() as usize;
        (offset, json.get().len())
    }
}

/// All inputs of decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PolicySources {
    pub(super) schemas: Vec<PolicySource>,
    pub(super) catalog: Vec<PolicySource>,
    pub(super) members: Vec<PolicySource>,
    pub(super) policies: Vec<PolicySource>,
}

impl PolicySources {
    /// Reads the folder `root`.
    pub(super) fn read(root: &Path) -> Result<Self, PolicyError> {
        let catalog = root.join("catalog");
        let mut schemas = files(root, ".cedarschema")?;
        schemas.extend(files(&catalog, ".cedarschema")?);
        let entities = root.join("entities");
        // The folder is optional.
        let members = if entities.is_dir() { files(&entities, ".json")? } else { Vec::new() };
        let catalog = files(&catalog, ".entities.json")?;
        Ok(Self { schemas, catalog, members, policies: files(root, ".cedar")? })
    }

    /// All files.
    pub(super) fn all(&self) -> impl Iterator<Item = &PolicySource> {
        [&self.schemas, &self.catalog, &self.members, &self.policies].into_iter().flatten()
    }

    /// A digest of every file.
    pub(super) fn revision(&self) -> String {
        let mut digest = Sha256::new();
        for group in [&self.schemas, &self.catalog, &self.members, &self.policies] {
            digest.update((group.len() as u64).to_be_bytes());
            for source in group {
                let name = source.path.file_name().unwrap_or_default().as_encoded_bytes();
                for part in [name, source.text.as_bytes()] {
                    length_prefixed(part, |bytes| digest.update(bytes));
                }
            }
        }
        HEXLOWER.encode(&digest.finalize()[..6])
    }
}

/// The files of `folder` whose names end with `suffix`, by name, except hidden files such as an
/// editor's.
pub(super) fn files(folder: &Path, suffix: &str) -> Result<Vec<PolicySource>, PolicyError> {
    let unreadable = |path: &Path, error: &io::Error| {
        PolicyError(vec![Problem::error(path, format!("cannot be read: {error}"))])
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(suffix) && !name.starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    paths
        .into_iter()
        .map(|path| match bounded::read_file_to_string(&path, FILE_BYTES_MAX) {
            Ok(text) => Ok(PolicySource { path, text }),
            Err(error) => Err(unreadable(&path, &error)),
        })
        .collect()
}

/// Metadata of a policy.
#[derive(Debug)]
pub(super) struct PolicyMeta {
    pub(super) id: String,
    pub(super) effect: Effect,
    /// Whether the policy is evaluated without effect on the outcome.
    pub(super) shadow: bool,
    pub(super) path: PathBuf,
    /// The line on which it starts, from 1.
    pub(super) line: usize,
    pub(super) text: String,
}

/// A policy whose id is its `@id`.
#[derive(Clone, Debug)]
pub(super) struct ParsedPolicy {
    pub(super) policy: Policy,
    pub(super) meta: Arc<PolicyMeta>,
    /// Its offset in its file, in bytes.
    pub(super) offset: usize,
    /// Whether it may read the arguments.
    pub(super) reads_arguments: bool,
}

/// Parses the policies of a file, in order.
pub(super) fn parse(source: &PolicySource) -> Result<Vec<ParsedPolicy>, Vec<Problem>> {
    let PolicySource { path, text } = source;
    let parsed: PolicySet = match text.parse() {
        Ok(parsed) => parsed,
        Err(errors) => {
            let errors: cedar_policy::ParseErrors = errors;
            return Err(errors
                .iter()
                .map(|error| Problem::from_cedar(path, text, error))
                .collect());
        }
    };
    let mut problems = Vec::new();
    let mut policies = Vec::new();
    let mut numbered: Vec<_> =
        parsed.policies().map(|policy| (number(policy.id()), policy)).collect();
    numbered.sort_by_key(|(number, _)| *number);
    let (mut from, mut line) = (0, 1);
    for (_, policy) in numbered {
        let own = policy.to_string();
        let offset = text[from..].find(&own).map_or(from, |found| from + found);
        line += text[from..offset].matches('\n').count();
        let parsed = with_own_id(source, policy, &own, (offset, line));
        from = (offset + own.len()).min(text.len());
        line += text[offset..from].matches('\n').count();
        match parsed {
            Ok(policy) => policies.push(policy),
            Err(problem) => problems.push(*problem),
        }
    }
    for template in parsed.templates() {
        let own = template.to_string();
        let offset = text.find(&own).unwrap_or_default();
        problems.push(Problem::error(path, "policy templates are not supported").at(
            text,
            offset,
            own.len(),
        ));
    }
    if problems.is_empty() { Ok(policies) } else { Err(problems) }
}

/// Cedar names the policies of a text `policy0`, `policy1`, ….
fn number(id: &PolicyId) -> usize {
    let id: &str = id.as_ref();
    id.trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

/// Cedar names policies by position; decisions and audit need a stable name.
fn with_own_id(
    source: &PolicySource,
    policy: &Policy,
    own: &str,
    (offset, line): (usize, usize),
) -> Result<ParsedPolicy, Box<Problem>> {
    let invalid =
        |message: &str| Problem::error(&source.path, message).at(&source.text, offset, own.len());
    let Some(id) = policy.annotation("id").filter(|id| !id.is_empty()) else {
        return Err(invalid("this policy has no @id")
            .help("write @id(\"a-unique-name\") above it")
            .into());
    };
    let meta = PolicyMeta {
        id: id.to_owned(),
        effect: policy.effect(),
        shadow: policy.annotation("shadow").is_some(),
        path: source.path.clone(),
        line,
        text: own.to_owned(),
    };
    Ok(ParsedPolicy {
        policy: policy.new_id(PolicyId::new(id)),
        meta: Arc::new(meta),
        offset,
        reads_arguments: true,
    })
}
