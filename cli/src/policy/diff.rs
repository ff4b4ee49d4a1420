use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use drawbridge_auth::{
    decision_log::DecisionRecord,
    policy::{Answer, Outcome, Replayed},
};
use serde_json::{Value, json};

use super::{Verdict, count, open, paint, print_json};

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// The folder of the other policies.
    folder: PathBuf,

    /// The decision log: a file of JSON lines, or a folder of such files.
    #[arg(long)]
    log: PathBuf,

    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Decisions that would change alike.
#[derive(Debug, Default)]
struct Change {
    times: usize,
    /// One of the requests.
    request_id: String,
    /// The policies that would decide.
    policy_ids: Vec<String>,
}

/// Who, what, and from which answer to which; without the last it depends on the arguments.
type Changed = (String, String, Answer, Option<Answer>);

pub(super) fn run(args: &DiffArgs) -> anyhow::Result<Verdict> {
    let study = open(&args.folder)?;
    let mut changes: Vec<(Changed, Change)> = Vec::new();
    let mut positions = BTreeMap::new();
    let mut all = 0;
    for record in records(&args.log)? {
        let record = record?;
        all += 1;
        let (answer, policy_ids) = match study.replay(&record) {
            Replayed::Same => continue,
            Replayed::Changed(Outcome { answer, policy_ids, .. }) => (Some(answer), policy_ids),
            Replayed::DependsOnArguments => (None, Vec::new()),
        };
        let who = format!("{}#{}", record.issuer, record.subject);
        let name = format!("{who} {} {:?} {answer:?}", record.item, record.outcome);
        let position = *positions.entry(name).or_insert_with(|| {
            let changed = (who, record.item, record.outcome, answer);
            let change = Change { request_id: record.request_id, policy_ids, ..Change::default() };
            changes.push((changed, change));
            changes.len() - 1
        });
        changes[position].1.times += 1;
    }
    if args.json {
        let changes: Vec<_> = changes.iter().map(as_json).collect();
        print_json(&json!({ "decisions": all, "changes": changes }))?;
    } else {
        print(&changes, all);
    }
    Ok(Verdict::good_if(changes.is_empty()))
}

/// The records of a decision log: of a file, or of every file of the folder that auth writes.
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
        // Their names have their days.
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
            record.with_context(|| format!("{}: this is not a recorded decision", place()))
        })
    }))
}

fn as_json(((who, item, from, to), change): &(Changed, Change)) -> Value {
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

fn print(changes: &[(Changed, Change)], all: usize) {
    for ((who, item, from, to), change) in changes {
        let Change { times, request_id, policy_ids } = change;
        let allowed = |answer: Answer| matches!(answer, Answer::Allow | Answer::Perhaps);
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
        let times = count(*times, "time");
        anstream::println!(
            "{who}  {}  {from:?} → {to}{by}  {times}, such as {request_id}",
            paint::strong(item)
        );
    }
    let (depend, change): (Vec<_>, Vec<_>) = changes.iter().partition(|((.., to), _)| to.is_none());
    let sum =
        |of: Vec<&(Changed, Change)>| of.iter().map(|(_, change)| change.times).sum::<usize>();
    let (change, depend) = (sum(change), sum(depend));
    let all = count(all, "decision");
    anstream::println!(
        "{all}: {change} would change, {depend} depend on arguments that were not recorded"
    );
}
