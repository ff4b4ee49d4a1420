//! The schema of all files, which is made again in the parts that change.

use std::{
    collections::HashMap,
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use cedar_policy::{Schema, SchemaFragment};
use miette::Diagnostic;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{problem::Problem, source::PolicySource};

/// The schema as last made.
#[derive(Debug, Default)]
pub(super) struct KnownSchema {
    digest: [u8; 32],
    files: HashMap<PathBuf, Arc<SchemaFile>>,
    in_order: Vec<Arc<SchemaFile>>,
    schema: Option<Arc<Schema>>,
}

/// A file as last parsed. Cedar's own forms take many times the memory of their texts.
#[derive(Debug)]
struct SchemaFile {
    text: String,
    /// In Cedar's JSON form, which parses faster.
    json: String,
}

impl KnownSchema {
    /// The schema of these files.
    pub(super) fn load(&mut self, sources: &[PolicySource]) -> Result<Arc<Schema>, Vec<Problem>> {
        let digest = digest(sources);
        if let Some(schema) = self.schema.as_ref().filter(|_| self.digest == digest) {
            return Ok(Arc::clone(schema));
        }
        let (files, fragments): (Vec<_>, Vec<_>) = self.parse(sources)?.into_iter().unzip();
        let schema = Schema::from_schema_fragments(fragments).map_err(|error| {
            let mut problem = Problem::error(
                first(sources),
                format!("the schemas contradict one another: {error}"),
            );
            problem.help = error.help().map(|help| help.to_string());
            vec![problem]
        })?;
        let schema = Arc::new(schema);
        (self.digest, self.schema) = (digest, Some(Arc::clone(&schema)));
        let paths = sources.iter().map(|source| source.path.clone());
        self.files = paths.zip(files.iter().cloned()).collect();
        self.in_order = files;
        Ok(schema)
    }

    /// Identifies it.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Its files in Cedar's JSON form.
    pub(super) fn fragments(&self) -> impl Iterator<Item = Value> {
        // INVARIANT: they are JSON, and without them nothing is taken for known.
        self.in_order.iter().map(|file| serde_json::from_str(&file.json).unwrap_or_default())
    }

    /// Parses the files on all processors.
    fn parse(&self, sources: &[PolicySource]) -> Result<Vec<ParsedFile>, Vec<Problem>> {
        let parse = |source: &PolicySource| {
            let known = self.files.get(&source.path).filter(|file| file.text == source.text);
            let again = known.and_then(|file| {
                Some((Arc::clone(file), SchemaFragment::from_json_str(&file.json).ok()?))
            });
            again.map_or_else(|| parse(source), Ok)
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = sources.len().div_ceil(threads).max(1);
        let parsed: Vec<_> = thread::scope(|scope| {
            let shares: Vec<_> = sources
                .chunks(share)
                .map(|share| scope.spawn(move || share.iter().map(parse).collect::<Vec<_>>()))
                .collect();
            shares.into_iter().flat_map(|share| share.join().unwrap_or_default()).collect()
        });
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        for result in parsed {
            match result {
                Ok(file) => files.push(file),
                Err(problem) => problems.push(*problem),
            }
        }
        if problems.is_empty() && files.len() < sources.len() {
            problems.push(Problem::error(first(sources), "the schemas could not be parsed"));
        }
        if problems.is_empty() { Ok(files) } else { Err(problems) }
    }
}

type ParsedFile = (Arc<SchemaFile>, SchemaFragment);

fn parse(source: &PolicySource) -> Result<ParsedFile, Box<Problem>> {
    let PolicySource { path, text } = source;
    let invalid = |error: &dyn Diagnostic| Box::new(Problem::from_cedar(path, text, error));
    let (fragment, warnings) =
        SchemaFragment::from_cedarschema_str(text).map_err(|error| invalid(&error))?;
    for warning in warnings {
        tracing::warn!(path = %path.display(), %warning, "schema");
    }
    let json = fragment.clone().to_json_string().map_err(|error| invalid(&error))?;
    Ok((Arc::new(SchemaFile { text: text.clone(), json }), fragment))
}

fn first(sources: &[PolicySource]) -> &Path {
    sources.first().map_or(Path::new("mcp.cedarschema"), |source| &source.path)
}

fn digest(sources: &[PolicySource]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for PolicySource { text, .. } in sources {
        digest.update(Sha256::digest(text));
    }
    digest.finalize().into()
}
