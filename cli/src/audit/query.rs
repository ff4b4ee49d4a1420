use std::path::PathBuf;

use anyhow::Context as _;
use drawbridge_audit::{
    DigestKey, Event, Record,
    read::{Item, records},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Logs, print};
use crate::table;

/// Which records.
#[derive(Clone, Debug, clap::Args)]
struct Filters {
    /// Only since this time, such as `2026-11-30T09:00:00Z`, or this long ago, such as `2h`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,

    /// Only before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,

    /// Only of this principal: its subject, or `ISSUER#SUBJECT`.
    #[arg(long, value_name = "SUBJECT")]
    principal: Option<String>,

    /// Only about this tool, resource or prompt.
    #[arg(long, value_name = "NAME")]
    item: Option<String>,

    /// Only with this outcome, such as `denied` or `not_permitted`.
    #[arg(long)]
    outcome: Option<String>,

    /// Only of this request.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Only these events, such as `call` or `decision`. Repeat, or separate by commas.
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    event: Vec<String>,
}

/// Arguments of `audit query`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge audit query logs/ --principal alice --since 2h
  drawbridge audit query logs/ --event call --outcome denied --json
  drawbridge audit query logs/ --request-id 0199c0f4-6b1e-7c3a-8d51-3a7e2b9f4c10")]
pub struct QueryArgs {
    #[command(flatten)]
    logs: Logs,

    #[command(flatten)]
    filters: Filters,

    /// Print the records as lines of JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `audit find`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge audit find logs/ --arguments '{\"invoice\": \"4711\"}' \\
    --audit-key-file audit.key

Records have no arguments unless the service runs with --audit-arguments, but a digest of them \
without sensitive ones.")]
pub struct FindArgs {
    #[command(flatten)]
    logs: Logs,

    /// The arguments of the call as JSON, as a policy reads them: omitted ones have their defaults,
    /// and sensitive ones are redacted.
    #[arg(long, value_name = "JSON")]
    arguments: String,

    /// The key of the digests: the file of the services' --audit-key-file, or `digest.key` beside
    /// the log.
    #[arg(long, value_name = "FILE")]
    audit_key_file: PathBuf,

    #[command(flatten)]
    filters: Filters,

    /// Print the records as lines of JSON.
    #[arg(long)]
    json: bool,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let ago = || Timestamp::now().checked_sub(text.parse::<SignedDuration>().ok()?).ok();
    text.parse().ok().or_else(ago).ok_or_else(|| {
        "expected a time such as 2026-11-30T09:00:00Z, or a duration such as 2h".to_owned()
    })
}

impl Filters {
    /// Whether a record passes. `fields` are those of the record.
    fn accept(&self, record: &Record, fields: &Value) -> bool {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| *wanted == text(name))
        };
        let is_of = |wanted: &String| {
            *wanted == text("subject")
                || *wanted == format!("{}#{}", text("issuer"), text("subject"))
        };
        let time = record.time.parse::<Timestamp>().unwrap_or_default();
        self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
            && self.principal.as_ref().is_none_or(is_of)
            && (self.event.is_empty() || self.event.iter().any(|name| name == text("event")))
            && is(&self.item, "item")
            && is(&self.outcome, "outcome")
            && is(&self.request_id, "request_id")
    }
}

pub(super) fn run(args: &QueryArgs) -> anyhow::Result<bool> {
    search(&args.logs, &args.filters, None, args.json)
}

pub(super) fn find(args: &FindArgs) -> anyhow::Result<bool> {
    let arguments: Value =
        serde_json::from_str(&args.arguments).context("invalid --arguments: not JSON")?;
    let key = DigestKey::read(&args.audit_key_file).context("cannot read the key of digests")?;
    let digest = key.digest(arguments.to_string().as_bytes());
    search(&args.logs, &args.filters, Some(&digest), args.json)
}

/// Prints the records that pass. Whether there is one.
fn search(
    logs: &Logs,
    filters: &Filters,
    digest: Option<&str>,
    is_json: bool,
) -> anyhow::Result<bool> {
    let mut table = table::new();
    table.set_header(["time", "event", "principal", "item", "outcome", "request id"]);
    let mut found = 0_u64;
    for item in records(&logs.logs)? {
        let record = match item? {
            Item::Record(record) => record,
            Item::Torn { place } => {
                anstream::eprintln!("{place}: an incomplete last line is ignored");
                continue;
            }
        };
        let fields = serde_json::to_value(&record)?;
        let has_digest =
            digest.is_none_or(|digest| fields.get("argument_digest") == Some(&digest.into()));
        if !has_digest || !filters.accept(&record, &fields) {
            continue;
        }
        found += 1;
        if is_json {
            print(&serde_json::to_string(&record)?)?;
        } else {
            table.add_row(row(&record, &fields));
        }
    }
    if !is_json && found > 0 {
        print(&table.to_string())?;
    }
    if found == 0 {
        anstream::eprintln!("no record was found");
    }
    Ok(found > 0)
}

fn row(record: &Record, fields: &Value) -> [String; 6] {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let about = match &record.event {
        Event::PolicyChange(change) => change.source.clone(),
        Event::ConfigChange(change) => format!("{} {}", change.what, change.source),
        Event::Admin(admin) => format!("{} {}", admin.action, admin.value),
        Event::Anchor(anchor) => format!("{} {}", anchor.origin, anchor.size),
        Event::Gap(gap) => format!("{} events: {}", gap.lost, gap.reason),
        Event::Call(call) if call.item.is_empty() => call.method.clone(),
        _ => text("item"),
    };
    let outcome = match (text("outcome"), text("code")) {
        (outcome, code) if code.is_empty() => outcome,
        (outcome, code) => format!("{outcome} {code}"),
    };
    let (time, event) = (record.time.clone(), record.event.name().to_owned());
    [time, event, text("subject"), about, outcome, text("request_id")]
}
