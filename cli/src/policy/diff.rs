use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use drawbridge_auth::{
    decision_log::{DecisionRecord, Replayed},
    policy::{DecisionOutcome, PolicyDecision},
};
use serde_json::{Value, json};

use super::{Verdict, open_workspace, paint, pluralize, print_json};

/// Arguments of `policy diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// The folder of the policies to compare with the log.
    folder: PathBuf,

    /// The decision log: a file of JSON lines, or a folder of such files.
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
    for record in records(&args.log)? {
        let record = record?;
        all += 1;
        let (answer, policy_ids) = match workspace.replay(&record) {
            Replayed::Same => continue,
            Replayed::Changed(PolicyDecision { outcome, policy_ids, .. }) => {
                (Some(outcome), policy_ids)
            }
            Replayed::DependsOnArguments => (None, Vec::new()),
        };
        let who = format!("{}#{}", record.issuer, record.subject);
        let name = format!("{who} {} {:?} {answer:?}", record.item, record.outcome);
        let position = *positions.entry(name).or_insert_with(|| {
            let key = (who, record.item, record.outcome, answer);
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

/// The records of a decision log: of one file, or of every file in the folder that auth writes.
pub(super) fn records(
    path: &Path,
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<DecisionRecord>>> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.with_context(|| format!("cannot read {}", path.display()))?;
        let all = entries.iter().map(fs::DirEntry::path);
        files = all
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        // File names contain the date.
        files.sort_unstable();
    }
    let opened = files.into_iter().map(|path| {
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path, BufReader::new(file)))
    });
    let opened: Vec<_> = opened.collect::<anyhow::Result<_>>()?;
    Ok(opened.into_iter().flat_map(|(path, file)| {
        file.lines().enumerate().map(move |(number, line)| {
            let place = || format!("{}:{}", path.display(), number + 1);
            let line = line.with_context(place)?;
            let record = serde_json::from_str(&line);
            record.with_context(|| format!("{}: not a decision record", place()))
        })
    }))
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
