use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use drawbridge_config::{ConfigError, Namespace};
use drawbridge_runtime::error_chain;
use serde_json::{Value, json};

use super::kinds::{CheckContext, FileKind};

/// Arguments of `config check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The kind of all these files. Absent: each file's kind follows from its name or its content.
    #[arg(long, value_parser = FileKind::names())]
    kind: Option<String>,

    /// The namespace of a tool service that a flag of the edge names, so that the edge's config
    /// file may refer to it. Repeat, or separate by commas.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    service: Vec<Namespace>,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// The result of one file.
enum Outcome {
    Right(&'static FileKind),
    Mistakes(&'static FileKind, ConfigError),
    /// It could not be checked.
    Unknown(String),
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let context = CheckContext { services: args.service.clone() };
    let outcomes: Vec<_> =
        args.files.iter().map(|path| (path, check(path, args.kind.as_deref(), &context))).collect();
    if args.json {
        let files: Vec<_> = outcomes.iter().map(|(path, outcome)| outcome.json(path)).collect();
        let ok = outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Right(_)));
        let output = json!({ "ok": ok, "files": files });
        anstream::println!("{}", serde_json::to_string_pretty(&output)?);
    } else {
        outcomes.iter().for_each(|(path, outcome)| outcome.print(path));
    }
    let worst = outcomes.iter().map(|(_, outcome)| outcome.exit_code()).max();
    Ok(ExitCode::from(worst.unwrap_or(0)))
}

/// Checks one file. Returns its kind.
///
/// # Errors
/// Its mistakes, each in a line, or why it cannot be checked.
pub(crate) fn check_file(
    path: &Path,
    services: Vec<Namespace>,
) -> Result<&'static str, Vec<String>> {
    match check(path, None, &CheckContext { services }) {
        Outcome::Right(kind) => Ok(kind.name),
        Outcome::Unknown(problem) => Err(vec![problem]),
        Outcome::Mistakes(_, error) if error.mistakes().is_empty() => {
            Err(vec![error_chain(&error)])
        }
        Outcome::Mistakes(_, error) => {
            let mistakes = error.mistakes().iter();
            Err(mistakes
                .map(|mistake| format!("line {}: {}", mistake.place.line, mistake.problem))
                .collect())
        }
    }
}

fn check(path: &Path, kind: Option<&str>, context: &CheckContext) -> Outcome {
    let kind = match kind {
        Some(name) => FileKind::named(name),
        None => FileKind::of(path).map_err(|error| error_chain(&error)).and_then(|kind| {
            kind.ok_or_else(|| {
                let path = path.display();
                format!("cannot tell the kind of {path} by its name or content; give it by --kind")
            })
        }),
    };
    let kind = match kind {
        Ok(kind) => kind,
        Err(message) => return Outcome::Unknown(message),
    };
    let text = match kind.read(path) {
        Ok(text) => text,
        Err(error) => return Outcome::Unknown(error_chain(&error)),
    };
    match (kind.check)(&text, context) {
        Ok(()) => Outcome::Right(kind),
        Err(error) => Outcome::Mistakes(kind, error),
    }
}

impl Outcome {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Right(_) => 0,
            Self::Mistakes(..) => 1,
            Self::Unknown(_) => 2,
        }
    }

    fn print(&self, path: &Path) {
        let path = path.display();
        match self {
            Self::Right(kind) => anstream::println!("{path}: ok ({})", kind.name),
            Self::Mistakes(kind, error) => {
                let count = error.mistakes().len().max(1);
                let plural = if count == 1 { "" } else { "s" };
                anstream::println!("{}\n", error_chain(error));
                anstream::println!("{path}: {count} mistake{plural} ({})", kind.name);
            }
            Self::Unknown(message) => anstream::eprintln!("error: {message}"),
        }
    }

    fn json(&self, path: &Path) -> Value {
        match self {
            Self::Right(kind) => {
                json!({ "file": path, "kind": kind.name, "ok": true, "mistakes": [] })
            }
            Self::Mistakes(kind, error) => {
                let mistakes = error.mistakes();
                let message = mistakes.is_empty().then(|| error_chain(error));
                json!({ "file": path, "kind": kind.name, "ok": false, "error": message,
                        "mistakes": mistakes })
            }
            Self::Unknown(message) => {
                json!({ "file": path, "kind": null, "ok": false, "error": message, "mistakes": [] })
            }
        }
    }
}
