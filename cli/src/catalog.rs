//! `drawbridge catalog`: reviews and locks what clients see.
//!
//! Exit codes: 0, the lock is up to date; 1, the lock differs from what is offered; 2, an error.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use drawbridge_config::ConfigText;
use drawbridge_contract::Contract;
use drawbridge_edge::{
    CatalogLock, DESCRIPTOR_SET_BYTES_MAX, LOCK_BYTES_MAX, LockDifference, LockProposal,
    preview_catalog,
};
use drawbridge_runtime::{bounded, print_error};
use prost_reflect::DescriptorPool;
use serde::Serialize;

use crate::contracts::ContractArgs;

/// The lock file of the services in this build.
const FILE: &str = "policies/catalog.lock";

/// The subcommands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum CatalogCommand {
    /// Lock what clients see of tools, resources and prompts: names, descriptions, schemas,
    /// annotations, and the RPCs behind them.
    ///
    /// Prints a diff of each item that differs from the lock. An edge whose config file names the
    /// lock withholds other items, or logs a warning.
    Lock(LockArgs),
}

/// The services, and the path of the lock.
#[derive(Clone, Debug, clap::Args)]
pub struct LockArgs {
    /// The edge's config file, for its services (unless others are given) and the path of its lock.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A descriptor set file with contracts of services. Repeat for more.
    #[arg(long, value_name = "FILE")]
    descriptor_set: Vec<PathBuf>,

    /// The lock. Absent: the one that the config file names, or policies/catalog.lock.
    #[arg(long)]
    file: Option<PathBuf>,

    /// Write nothing; fail if the lock differs from what is offered.
    #[arg(long)]
    check: bool,

    /// Remove items from the lock that are no longer offered. Without this option, the command
    /// fails instead of removing items.
    #[arg(long, conflicts_with = "check")]
    remove: bool,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    services: ContractArgs,
}

/// The outcome.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    /// Whether the lock now equals what is offered.
    current: bool,
    differences: Vec<LockDifference>,
    /// One sentence per item that is omitted because another service claims its name.
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
        let bytes = bounded::read_file(path, DESCRIPTOR_SET_BYTES_MAX)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let pool = DescriptorPool::decode(bytes.as_slice());
        contracts.push(contract(
            pool.with_context(|| format!("{} is not a valid descriptor set", path.display()))?,
        ));
    }
    if contracts.is_empty() && args.config.is_none() {
        contracts.push(contract(drawbridge_mesh::contracts()?));
    }
    let offer =
        preview_catalog(args.config.as_deref(), &args.services.peers()?, &contracts).await?;
    let file =
        args.file.clone().or_else(|| offer.file.clone()).unwrap_or_else(|| PathBuf::from(FILE));
    let before = read(&file, args.check)?;
    let LockProposal { lock, conflicts } = offer.propose_lock(before.clone());
    if lock.is_empty() {
        bail!("nothing is offered, so there is nothing to lock; {} is unchanged", file.display());
    }
    let (text, differences) = (lock.text(), before.differences(&lock));
    if !args.check {
        check_removals(&file, &differences, &conflicts, args)?;
    }
    // A lock with the same content in another layout is rewritten too.
    let before = bounded::read_file_to_string(&file, LOCK_BYTES_MAX);
    let mut current = before.is_ok_and(|before| before == text);
    if !current && !args.check {
        write(&file, &text)?;
        current = true;
    }
    let report = Report { file, current, differences, conflicts };
    print_report(&report, args)?;
    Ok(report)
}

/// Refuses to remove items from the lock without `--remove`: a service may be missing by mistake,
/// or another one may claim the name.
fn check_removals(
    file: &Path,
    differences: &[LockDifference],
    conflicts: &[String],
    args: &LockArgs,
) -> anyhow::Result<()> {
    if args.remove || differences.iter().all(|difference| difference.change != "gone") {
        return Ok(());
    }
    let (file, count_changes) = (file.display(), count_changes(differences));
    bail!(
        "{file}: {count_changes}; {}; use `--remove` to remove them from the lock",
        describe_removed(differences, conflicts)
    )
}

/// The items no longer offered, each with the conflict that caused it, and then the other
/// conflicts.
fn describe_removed(differences: &[LockDifference], conflicts: &[String]) -> String {
    let mut others: Vec<_> = conflicts.iter().collect();
    let mut describe_removed = Vec::new();
    for LockDifference { kind, name, .. } in differences.iter().filter(|item| item.change == "gone")
    {
        let kind = kind.as_str();
        let prefixes =
            [" name", "'s own name"].map(|what| format!("the {kind}{what} {name:?} of "));
        let conflict =
            others.iter().position(|conflict| prefixes.iter().any(|it| conflict.starts_with(it)));
        let conflict = conflict.map(|at| format!(" (claimed instead: {})", others.remove(at)));
        describe_removed.push(format!("{kind} {name}{}", conflict.unwrap_or_default()));
    }
    let left_out: String =
        others.iter().map(|conflict| format!("; left out: {conflict}")).collect();
    format!("no longer offered: {}{left_out}", describe_removed.join(", "))
}

/// The number of differing items per kind of change.
fn count_changes(differences: &[LockDifference]) -> String {
    let count =
        |change| differences.iter().filter(|difference| difference.change == change).count();
    format!("{} new, {} changed, {} gone", count("new"), count("changed"), count("gone"))
}

fn contract(pool: DescriptorPool) -> Contract {
    let services = pool.services().map(|service| service.full_name().to_owned()).collect();
    Contract { pool, services }
}

/// The current lock. A missing or corrupt lock is created from scratch.
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
            anstream::eprintln!("warning: {error}; the lock will be rewritten");
            Ok(CatalogLock::default())
        }
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    // Atomic: an edge that follows the file reads the old or the new version.
    let partial = file.with_extension("lock.partial");
    fs::write(&partial, text).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, file).with_context(|| format!("cannot write {}", file.display()))
}

fn print_report(report: &Report, args: &LockArgs) -> anyhow::Result<()> {
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    if !report.differences.is_empty() {
        anstream::println!("{}: {}", report.file.display(), count_changes(&report.differences));
    }
    for LockDifference { kind, name, change, diff } in &report.differences {
        anstream::println!("{} {name} is {change}\n{diff}", kind.as_str());
    }
    for conflict in &report.conflicts {
        anstream::eprintln!("warning: left out: {conflict}");
    }
    let file = report.file.display();
    match (report.current, args.check) {
        (true, true) => anstream::println!("{file} is up to date"),
        (true, false) => anstream::println!("{file} now locks what is offered"),
        (false, _) => {
            anstream::println!(
                "{file} differs from what is offered: review the changes, then run `drawbridge \
                 catalog lock`"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use drawbridge_edge::ItemKind;

    use super::*;

    /// Regression: the message omitted the service that had claimed the name.
    #[test]
    fn a_removed_item_is_reported_with_the_conflict_that_caused_it() {
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
            describe_removed(&differences, &conflicts),
            format!(
                "no longer offered: tool code_search (claimed instead: {}), tool code_read; left \
                 out: {}",
                conflicts[0], conflicts[1]
            )
        );
    }
}
