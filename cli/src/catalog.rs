//! `drawbridge catalog`: what clients see, to be reviewed and locked.
//!
//! Exit codes: 0, all is well; 1, the lock is not what is offered; 2, it could not be found out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use drawbridge_edge::{CatalogLock, LOCK_BYTES_MAX, LockDifference, Lockable, offered};
use drawbridge_sdk::{
    ConfigText, print_error,
    reflection::{self, Contract},
};
use prost_reflect::DescriptorPool;
use serde::Serialize;

use crate::contracts::ContractArgs;

/// Where the lock of what this build offers is.
const FILE: &str = "policies/catalog.lock";

/// What to do about what clients see.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum CatalogCommand {
    /// Lock what clients see of tools, resources and prompts: names, descriptions, schemas,
    /// annotations, and the RPCs behind them.
    ///
    /// What differs from the lock is shown line by line. An edge whose config file names the lock
    /// withholds what is not in it, or warns.
    Lock(LockArgs),
}

/// Which services, and where the lock is.
#[derive(Clone, Debug, clap::Args)]
pub struct LockArgs {
    /// The edge's config file: its services, unless others are given, and the place of its lock.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A file that holds the contract of services. Repeat for more.
    #[arg(long, value_name = "FILE")]
    descriptor_set: Vec<PathBuf>,

    /// The lock. Absent: the one that the config file names, or policies/catalog.lock.
    #[arg(long)]
    file: Option<PathBuf>,

    /// Write nothing; fail when the lock is not what is offered.
    #[arg(long)]
    check: bool,

    /// Take what is no longer offered out of the lock. Without this, a lock that would lose
    /// something is left as it is.
    #[arg(long, conflicts_with = "check")]
    remove: bool,

    /// Answer as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    services: ContractArgs,
}

/// What became of the lock.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    /// Whether it is now what is offered.
    current: bool,
    differences: Vec<LockDifference>,
    /// What is left out because another service claims its name: a sentence for each.
    conflicts: Vec<String>,
}

/// Runs `drawbridge catalog`.
pub async fn run(command: CatalogCommand) -> ExitCode {
    let CatalogCommand::Lock(args) = command;
    match lock(&args).await {
        Ok(report) if report.current => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            print_error(error.as_ref());
            ExitCode::from(2)
        }
    }
}

async fn lock(args: &LockArgs) -> anyhow::Result<Report> {
    let mut contracts = args.services.read().await?;
    for path in &args.descriptor_set {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let pool = DescriptorPool::decode(bytes.as_slice());
        contracts.push(contract(
            pool.with_context(|| format!("{} is no descriptor set", path.display()))?,
        ));
    }
    if contracts.is_empty() && args.config.is_none() {
        contracts.push(contract(reflection::built_in()?));
    }
    let now = offered(args.config.as_deref(), &args.services.peers()?, &contracts).await?;
    let file =
        args.file.clone().or_else(|| now.file.clone()).unwrap_or_else(|| PathBuf::from(FILE));
    let before = read(&file, args.check)?;
    let Lockable { lock, conflicts } = now.lockable(before.clone());
    if lock.is_empty() {
        bail!("nothing is offered, so there is nothing to lock: {} is as it was", file.display());
    }
    let (text, differences) = (lock.text(), before.differences(&lock));
    if !args.check {
        may_remove(&file, &differences, &conflicts, args)?;
    }
    // A lock that says the same otherwise is written anew too.
    let mut current = fs::read_to_string(&file).is_ok_and(|there| there == text);
    if !current && !args.check {
        write(&file, &text)?;
        current = true;
    }
    let report = Report { file, current, differences, conflicts };
    tell(&report, args)?;
    Ok(report)
}

/// Refuses to take something out of the lock unless that is asked for: a service may only have been
/// left out, or another one may claim the name.
fn may_remove(
    file: &Path,
    differences: &[LockDifference],
    conflicts: &[String],
    args: &LockArgs,
) -> anyhow::Result<()> {
    if args.remove || differences.iter().all(|difference| difference.change != "gone") {
        return Ok(());
    }
    let (file, summary) = (file.display(), summary(differences));
    bail!(
        "{file}: {summary}; {}: `--remove` takes that out of the lock",
        gone(differences, conflicts)
    )
}

/// What is no longer offered, with the conflict that is the reason, and then the other conflicts.
fn gone(differences: &[LockDifference], conflicts: &[String]) -> String {
    let mut others: Vec<_> = conflicts.iter().collect();
    let mut gone = Vec::new();
    for LockDifference { kind, name, .. } in differences.iter().filter(|item| item.change == "gone")
    {
        let kind = kind.as_str();
        let about = [" name", "'s own name"].map(|what| format!("the {kind}{what} {name:?} of "));
        let claimed =
            others.iter().position(|conflict| about.iter().any(|it| conflict.starts_with(it)));
        let claimed = claimed.map(|at| format!(" (claimed instead: {})", others.remove(at)));
        gone.push(format!("{kind} {name}{}", claimed.unwrap_or_default()));
    }
    let left_out: String =
        others.iter().map(|conflict| format!("; left out: {conflict}")).collect();
    format!("no longer offered: {}{left_out}", gone.join(", "))
}

/// How many items differ, by how.
fn summary(differences: &[LockDifference]) -> String {
    let count =
        |change| differences.iter().filter(|difference| difference.change == change).count();
    format!("{} new, {} changed, {} gone", count("new"), count("changed"), count("gone"))
}

fn contract(pool: DescriptorPool) -> Contract {
    let services = pool.services().map(|service| service.full_name().to_owned()).collect();
    Contract { pool, services }
}

/// The lock as it is. One that is not there, or is broken, is written from nothing.
fn read(file: &Path, check: bool) -> anyhow::Result<CatalogLock> {
    if !file.exists() {
        return Ok(CatalogLock::default());
    }
    let read =
        ConfigText::read_within(file, LOCK_BYTES_MAX).and_then(|text| CatalogLock::parse(&text));
    match read {
        Ok(lock) => Ok(lock),
        Err(error) if check => Err(error.into()),
        Err(error) => {
            anstream::eprintln!("warning: {error}; it is written anew");
            Ok(CatalogLock::default())
        }
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // Whoever follows the file sees the old one or the new one.
    let partial = file.with_extension("lock.partial");
    fs::write(&partial, text).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, file).with_context(|| format!("cannot write {}", file.display()))
}

fn tell(report: &Report, args: &LockArgs) -> anyhow::Result<()> {
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    if !report.differences.is_empty() {
        anstream::println!("{}: {}", report.file.display(), summary(&report.differences));
    }
    for LockDifference { kind, name, change, diff } in &report.differences {
        anstream::println!("{} {name} is {change}\n{diff}", kind.as_str());
    }
    for conflict in &report.conflicts {
        anstream::eprintln!("warning: left out: {conflict}");
    }
    let file = report.file.display();
    match (report.current, args.check) {
        (true, true) => anstream::println!("{file} is what is offered"),
        (true, false) => anstream::println!("{file} locks what is offered"),
        (false, _) => {
            anstream::println!(
                "{file} is not what is offered: review it, then run `drawbridge catalog lock`"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use drawbridge_edge::ItemKind;

    use super::*;

    /// It said only that the tool was gone, not that another service had taken its name.
    #[test]
    fn what_is_gone_because_another_service_claims_it_is_said_with_the_conflict() {
        let difference = |name: &str, change| LockDifference {
            kind: ItemKind::Tool,
            name: name.to_owned(),
            change,
            diff: String::new(),
        };
        let differences = [
            difference("code_search", "gone"),
            difference("code_read", "gone"),
            difference("code_list", "new"),
        ];
        let conflicts = [
            "the tool name \"code_search\" of a.B/C (x) belongs to d.E/F (y)".to_owned(),
            "the prompt name \"ask\" of a.B/G (x) belongs to d.E/H (y)".to_owned(),
        ];
        assert_eq!(
            gone(&differences, &conflicts),
            format!(
                "no longer offered: tool code_search (claimed instead: {}), tool code_read; left out: {}",
                conflicts[0], conflicts[1]
            )
        );
    }
}
