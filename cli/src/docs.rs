//! `drawbridge docs`: writes the generated parts of the documentation from the code's own tables.
//!
//! A page marks such a part with `<!-- generated: NAME -->` and `<!-- end -->`; the text around it
//! is written by hand. The JSON Schemas of config files are files of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Command;

use crate::config;

mod audit;
mod commands;
mod config_files;
mod error_codes;
mod log_events;
mod metrics;
mod ports;

/// The folder of the JSON Schemas of config files, below that of pages.
const SCHEMAS: &str = "reference/schemas";

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->\n";

/// Arguments of `docs`.
#[derive(Clone, Debug, clap::Args)]
pub struct DocsArgs {
    /// The folder of pages.
    #[arg(long, default_value = "docs")]
    folder: PathBuf,

    /// Write nothing; fail if a page is out of date.
    #[arg(long)]
    check: bool,
}

/// All generated parts, by name.
fn parts(command_line: Command) -> BTreeMap<String, String> {
    let parts = metrics::parts().chain(commands::parts(command_line)).chain(error_codes::parts());
    parts
        .chain(audit::parts())
        .chain(ports::parts())
        .chain(config_files::parts())
        .chain(log_events::parts())
        .collect()
}

/// Runs `drawbridge docs` for this command line.
///
/// # Errors
/// When a page cannot be read or written, names an unknown part, or is out of date.
pub fn run(args: &DocsArgs, command_line: Command) -> anyhow::Result<()> {
    let parts = parts(command_line);
    let (mut used, mut stale) = (BTreeSet::new(), Vec::new());
    for path in pages(&args.folder)? {
        let shown = path.display();
        let page = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
        let filled = fill(&page, &parts, &mut used).with_context(|| format!("in {shown}"))?;
        if filled != page {
            stale.push((path, filled));
        }
    }
    for (name, schema) in config::schemas() {
        let path = args.folder.join(SCHEMAS).join(name);
        if fs::read_to_string(&path).ok().as_ref() != Some(&schema) {
            stale.push((path, schema));
        }
    }
    if args.check && !stale.is_empty() {
        let paths: Vec<_> = stale.iter().map(|(path, _)| path.display().to_string()).collect();
        bail!("out of date: {}; run `drawbridge docs`", paths.join(", "));
    }
    for (path, text) in stale {
        write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        anstream::println!("wrote {}", path.display());
    }
    let unused: Vec<_> = parts.into_keys().filter(|name| !used.contains(name)).collect();
    ensure!(unused.is_empty(), "no page has the generated parts: {}", unused.join(", "));
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// The Markdown files below a folder.
fn pages(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            pages.extend(self::pages(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(pages)
}

/// A page with its generated parts, whose names are added to `used`.
fn fill(
    page: &str,
    parts: &BTreeMap<String, String>,
    used: &mut BTreeSet<String>,
) -> anyhow::Result<String> {
    let (mut filled, mut rest) = (String::new(), page);
    while let Some(begin) = rest.find(BEGIN) {
        let marker_end = rest[begin..].find('\n').map_or(rest.len(), |at| begin + at + 1);
        let marker = &rest[begin..marker_end];
        let name = marker[BEGIN.len()..].trim_end().trim_end_matches("-->").trim_end();
        let part = parts.get(name).with_context(|| {
            let known: Vec<_> = parts.keys().map(String::as_str).collect();
            format!("no generated part is named {name:?}; there are: {}", known.join(", "))
        })?;
        let end = rest[marker_end..].find(END);
        let end = end.with_context(|| format!("the part {name:?} has no `{}`", END.trim_end()))?;
        used.insert(name.to_owned());
        filled.push_str(&rest[..marker_end]);
        filled.push('\n');
        filled.push_str(part);
        filled.push('\n');
        filled.push_str(END);
        rest = &rest[marker_end + end + END.len()..];
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A table in Markdown.
fn table<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let line = |cells: &[String]| {
        let cells = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(&header.map(str::to_owned));
    text.push_str(&format!("|{}\n", "---|".repeat(COLUMNS)));
    rows.into_iter().for_each(|row| text.push_str(&line(&row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str, expected: Result<&str, &str>) {
        let parts = BTreeMap::from([("ports".to_owned(), "| a |\n".to_owned())]);
        let filled = fill(page, &parts, &mut BTreeSet::new());
        match (filled, expected) {
            (Ok(filled), Ok(expected)) => assert_eq!(filled, expected),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (filled, _) => panic!("{filled:?}"),
        }
    }

    #[test]
    fn only_the_text_between_markers_is_generated() {
        let filled = "by hand\n<!-- generated: ports -->\n\n| a |\n\n<!-- end -->\nby hand\n";
        check("by hand\n<!-- generated: ports -->\nold\n<!-- end -->\nby hand\n", Ok(filled));
        check("by hand\n<!-- generated: ports -->\n<!-- end -->\nby hand\n", Ok(filled));
        check(filled, Ok(filled));
        check("by hand\n", Ok("by hand\n"));
    }

    #[test]
    fn a_marker_without_an_end_or_a_known_name_is_an_error() {
        check("<!-- generated: ports -->\nold\n", Err("has no `<!-- end -->`"));
        check("<!-- generated: port -->\n<!-- end -->\n", Err("\"port\"; there are: ports"));
    }

    #[test]
    fn cells_cannot_break_a_table() {
        let text = table(["a", "b"], [["x|y".to_owned(), "two\nlines".to_owned()]]);
        assert_eq!(text, "| a | b |\n|---|---|\n| x\\|y | two lines |\n");
    }
}
