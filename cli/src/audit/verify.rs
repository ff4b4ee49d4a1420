use std::{
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use drawbridge_audit::verify::{LogReport, verify_with};

use super::{Logs, TrustedKeys, print, print_json};

/// Arguments of `audit verify`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge audit verify /var/log/drawbridge
  drawbridge audit verify auth-0/ auth-1/ edge-0/ --key audit-keys.txt
  drawbridge audit verify logs/ --received siem-export.jsonl

Give the logs of all replicas at once: each has recorded the state of the others.")]
pub struct VerifyArgs {
    #[command(flatten)]
    logs: Logs,

    #[command(flatten)]
    keys: TrustedKeys,

    /// A file of JSON lines that a receiver has stored, to which services have sent their logs: the
    /// logs must have the checkpoints in it. Repeat for several.
    #[arg(long, value_name = "FILE")]
    received: Vec<PathBuf>,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// How many bytes there are between two reports of progress.
const PROGRESS_BYTES: u64 = 64 << 20;

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<bool> {
    let keys = args.keys.read()?;
    let mut progress = Progress::new(args);
    let reports = verify_with(&args.logs.logs, &args.received, &keys, |bytes| progress.add(bytes))?;
    progress.finish();
    if reports.is_empty() {
        anyhow::bail!("there is no audit log in {}", shown(&args.logs));
    }
    if args.json {
        print_json(&reports)?;
    } else {
        for report in &reports {
            print(&describe(report))?;
        }
    }
    Ok(reports.iter().all(|report| report.problems.is_empty()))
}

fn shown(logs: &Logs) -> String {
    let names: Vec<_> = logs.logs.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

fn describe(report: &LogReport) -> String {
    let LogReport { log, first, size, times, key, checkpoints, signed, vouchers, lost, .. } =
        report;
    let verdict = if report.problems.is_empty() { "ok" } else { "CHANGED" };
    let mut lines = vec![format!("{log}: {verdict}")];
    let mut add = |line: String| lines.push(format!("  {line}"));
    let (from, until) = times.clone().unwrap_or_default();
    add(format!("lines {} of {size}, {from} to {until}", range(*first, *size)));
    if *first > 0 {
        add(format!(
            "lines {} were deleted; a signed checkpoint of them remains",
            range(0, *first)
        ));
    }
    add(format!("lines {} signed, {checkpoints} checkpoints", range(0, *signed)));
    for voucher in vouchers {
        let lines = range(0, voucher.size);
        add(format!("lines {lines} vouched for by {} since {}", voucher.log, voucher.time));
    }
    if vouchers.is_empty() {
        add("vouched for by no other log among these".to_owned());
    }
    let covered = vouchers.iter().map(|voucher| voucher.size).max().unwrap_or(0).max(*signed);
    if covered < *size {
        add(format!("lines {} in no checkpoint yet", range(covered, *size)));
    }
    if *lost > 0 {
        add(format!("{lost} events could not be recorded"));
    }
    report.notes.iter().for_each(|note| add(format!("note: {note}")));
    report.problems.iter().for_each(|problem| add(format!("problem: {problem}")));
    if let Some(key) = key {
        add(format!("key {key}"));
    }
    lines.join("\n")
}

/// The numbers of lines, from 0.
fn range(from: u64, until: u64) -> String {
    match until {
        0 => "none".to_owned(),
        until if from + 1 == until => format!("{from}"),
        until => format!("{from}–{}", until - 1),
    }
}

/// The progress on a terminal.
struct Progress {
    total: u64,
    done: u64,
    shown: u64,
    is_shown: bool,
}

impl Progress {
    fn new(args: &VerifyArgs) -> Self {
        let total = args.logs.logs.iter().map(|path| bytes_below(path)).sum();
        let is_shown = io::stderr().is_terminal() && total > PROGRESS_BYTES;
        Self { total, done: 0, shown: 0, is_shown }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.is_shown && self.done - self.shown >= PROGRESS_BYTES {
            self.shown = self.done;
            let percent = self.done * 100 / self.total.max(1);
            anstream::eprint!("\r{percent} % of {} MiB", self.total >> 20);
        }
    }

    fn finish(&self) {
        if self.is_shown {
            anstream::eprintln!("\r100 % of {} MiB", self.total >> 20);
        }
    }
}

fn bytes_below(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| bytes_below(&entry.path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |metadata| metadata.len()),
    }
}
