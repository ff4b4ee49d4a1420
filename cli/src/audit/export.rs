use std::path::PathBuf;

use anyhow::Context as _;
use drawbridge_audit::{
    Record,
    export::{pseudonymise, to_cef, to_ocsf},
    read::{Item, records},
};
use drawbridge_runtime::Pseudonyms;

use super::{Logs, print};

/// Arguments of `audit export`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge audit export logs/ --format ocsf > events.jsonl
  drawbridge audit export logs/ --format jsonl --pseudonymise pseudonym.key")]
pub struct ExportArgs {
    #[command(flatten)]
    logs: Logs,

    /// The form of the events.
    #[arg(long, value_enum)]
    format: Format,

    /// Replace principals by their pseudonyms in spans and service logs, made with the key in this
    /// file (the services' --pseudonym-key-file), and leave out e-mail addresses, groups, network
    /// addresses and arguments.
    #[arg(long, value_name = "FILE")]
    pseudonymise: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// The records as they are.
    Jsonl,
    /// Events of OCSF, with the profile for AI operations.
    Ocsf,
    /// Lines of CEF.
    Cef,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<bool> {
    let names = args.pseudonymise.as_ref().map(|file| Pseudonyms::read(file)).transpose();
    let names = names.context("cannot read the key of pseudonyms")?;
    for item in records(&args.logs.logs)? {
        let mut record = match item? {
            Item::Record(record) => *record,
            Item::Torn { place } => {
                anstream::eprintln!("{place}: an incomplete last line is ignored");
                continue;
            }
        };
        if let Some(names) = &names {
            let mut fields = serde_json::to_value(&record)?;
            pseudonymise(&mut fields, names);
            record = serde_json::from_value(fields)?;
        }
        if let Some(line) = format(&record, args.format)? {
            print(&line)?;
        }
    }
    Ok(true)
}

fn format(record: &Record, format: Format) -> anyhow::Result<Option<String>> {
    Ok(match format {
        Format::Jsonl => Some(serde_json::to_string(record)?),
        Format::Ocsf => to_ocsf(record).map(|event| event.to_string()),
        Format::Cef => to_cef(record),
    })
}
