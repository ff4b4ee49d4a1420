use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use drawbridge_audit::{
    Event,
    event::Decision,
    read::{self, Item},
};
use drawbridge_auth::policy::{DecisionOutcome, PolicyDecision, Replayed};
use serde_json::{Value, json};

use super::{Verdict, open_workspace, paint, pluralize, print_json};

/// Arguments of `policy diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// The folder of the policies to compare with the log.
    folder: PathBuf,

    /// The audit log of auth: a file of JSON lines, or a folder with such files.
    #[arg(long)]
    log: PathBuf,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Decisions that would change in the same way.
#[derive(Debug, Default)]
struct Change {
    times: usize,
    /// The id of one such request.
    request_id: String,
    /// The policies that would determine the new outcome.
    policy_ids: Vec<String>,
}

/// The principal, the item, the old outcome and the new one. No new outcome: it depends on the
/// arguments.
type ChangeKey = (String, String, DecisionOutcome, Option<DecisionOutcome>);

pub(super) fn run(args: &DiffArgs) -> anyhow::Result<Verdict> {
    let workspace = open_workspace(&args.folder)?;
    let mut changes: Vec<(ChangeKey, Change)> = Vec::new();
    let mut positions = BTreeMap::new();
    let mut all = 0;
    for event in events(&args.log)? {
        let Event::Decision(record) = event? else { continue };
        let recorded = outcome(&record)?;
        all += 1;
        let (answer, policy_ids) = match workspace.replay(&record) {
            Replayed::Same => continue,
            Replayed::Changed(PolicyDecision { outcome, policy_ids, .. }) => {
                (Some(outcome), policy_ids)
            }
            Replayed::DependsOnArguments => (None, Vec::new()),
        };
        let who = format!("{}#{}", record.who.issuer, record.who.subject);
        let name = format!("{who} {} {recorded:?} {answer:?}", record.item);
        let position = *positions.entry(name).or_insert_with(|| {
            let key = (who, record.item, recorded, answer);
            let change = Change { request_id: record.request_id, policy_ids, ..Change::default() };
            changes.push((key, change));
            changes.len() - 1
        });
        changes[position].1.times += 1;
    }
    if args.json {
        let changes: Vec<_> = changes.iter().map(change_to_json).collect();
        print_json(&json!({ "decisions": all, "changes": changes }))?;
    } else {
        print(&changes, all);
    }
    Ok(Verdict::good_if(changes.is_empty()))
}

/// The events in audit logs: of one file, or of all files in a folder. A torn last line, which a
/// crash leaves, is reported and skipped.
pub(super) fn events(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Event>>> {
    let cannot_read = format!("cannot read the audit log in {}", path.display());
    let items = read::records(&[path.to_owned()]).with_context(|| cannot_read.clone())?;
    Ok(items.filter_map(move |item| match item.with_context(|| cannot_read.clone()) {
        Ok(Item::Record(record)) => Some(Ok(record.event)),
        Ok(Item::Torn { place }) => {
            let skipped = format!("{place}: the last line is torn; it is skipped");
            anstream::eprintln!("{}", paint::warning(&skipped));
            None
        }
        Err(error) => Some(Err(error)),
    }))
}

/// The outcome of a recorded decision.
fn outcome(record: &Decision) -> anyhow::Result<DecisionOutcome> {
    let outcome = serde_json::from_value(Value::from(record.outcome.as_str()));
    outcome.with_context(|| {
        let Decision { outcome, request_id, .. } = record;
        format!("unknown outcome {outcome:?} of the request {request_id}")
    })
}

fn change_to_json(((who, item, from, to), change): &(ChangeKey, Change)) -> Value {
    json!({
        "principal": who,
        "item": item,
        "from": from,
        "to": to,
        "depends_on_arguments": to.is_none(),
        "policy_ids": change.policy_ids,
        "times": change.times,
        "request_id": change.request_id,
    })
}

fn print(changes: &[(ChangeKey, Change)], all: usize) {
    for ((who, item, from, to), change) in changes {
        let Change { times, request_id, policy_ids } = change;
        let allowed = |answer: DecisionOutcome| {
            matches!(answer, DecisionOutcome::Allow | DecisionOutcome::Conditional)
        };
        let to = match to {
            None => paint::warning("depends on arguments, which were not recorded"),
            Some(to) if allowed(*to) => paint::good(&format!("{to:?}")),
            Some(to) => paint::bad(&format!("{to:?}")),
        };
        let by = if policy_ids.is_empty() {
            String::new()
        } else {
            format!(" by {}", policy_ids.join(", "))
        };
        let times = pluralize(*times, "time");
        anstream::println!(
            "{who}  {}  {from:?} → {to}{by}  {times}, such as {request_id}",
            paint::strong(item)
        );
    }
    let (depend, change): (Vec<_>, Vec<_>) = changes.iter().partition(|((.., to), _)| to.is_none());
    let total = |group: Vec<&(ChangeKey, Change)>| {
        group.iter().map(|(_, change)| change.times).sum::<usize>()
    };
    let (change, depend) = (total(change), total(depend));
    let all = pluralize(all, "decision");
    anstream::println!(
        "{all}: {change} would change, {depend} depend on arguments that were not recorded"
    );
}
