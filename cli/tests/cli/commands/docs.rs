//! Commands, options and variables in the documentation.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command as Process,
};

use clap::{Command, error::ErrorKind};
use drawbridge_cli::command_line;

use super::help::services;
use crate::{REPOSITORY, Up, policy::Folder, text};

/// Pages whose commands all run in a checkout.
const RUN: [&str; 3] = [
    "docs/how-to/write-policies.md",
    "docs/how-to/test-policies.md",
    "docs/how-to/write-a-tool-service.md",
];
/// Pages whose examples are files of a service that is not shipped.
const EXAMPLES: [&str; 4] = [
    "docs/how-to/write-policies.md",
    "docs/how-to/test-policies.md",
    "docs/how-to/write-a-tool-service.md",
    "docs/reference/contract.md",
];
/// The maximum number of `no-run` blocks in those pages.
const NOT_RUN_MAX: usize = 3;
/// Options of other programs.
const FOREIGN_OPTIONS: [&str; 4] =
    ["service-account-issuer", "debug", "reset-then-reuse-values", "reuse-values"];
/// Variables without an option.
const OTHER_VARIABLES: [&str; 3] =
    ["DRAWBRIDGE_STATE_DIR", "DRAWBRIDGE_TOOLS", "DRAWBRIDGE_COMMIT"];

/// A code block, with the info string of its fence.
pub(crate) struct Block {
    pub(crate) page: String,
    pub(crate) line: usize,
    pub(crate) info: String,
    pub(crate) text: String,
}

pub(super) fn read(page: &str) -> String {
    fs::read_to_string(Path::new(REPOSITORY).join(page))
        .unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// All pages: the Markdown files below `docs`, and those at the root.
pub(super) fn pages() -> Vec<String> {
    let root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    let mut pages = root.map(str::to_owned).to_vec();
    let mut folders = vec!["docs".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(REPOSITORY).join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_str().expect("a name"));
            if entry.file_type().expect("a type").is_dir() {
                folders.push(path);
            } else if path.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages
}

pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let (text, mut blocks, mut open) = (read(page), Vec::new(), None::<Block>);
    for (line, content) in text.lines().enumerate() {
        let fence = content.trim_start().strip_prefix("```");
        open = match (open, fence) {
            (None, Some(info)) => {
                let (page, info) = (page.to_owned(), info.trim().to_owned());
                Some(Block { page, line: line + 1, info, text: String::new() })
            }
            (Some(block), Some(_)) => {
                blocks.push(block);
                None
            }
            (Some(mut block), None) => {
                block.text.push_str(content.trim_end());
                block.text.push('\n');
                Some(block)
            }
            (None, None) => None,
        };
    }
    assert!(open.is_none(), "{page}: a fence without an end");
    blocks
}

/// A folder with the files of a checkout that the commands read.
fn checkout() -> Folder {
    let folder = Folder::new();
    let root = folder.0.path();
    for part in ["policies", "deploy"] {
        crate::policy::copy(&Path::new(REPOSITORY).join(part), &root.join(part));
    }
    folder
}

pub(crate) fn path_with_the_binary() -> std::ffi::OsString {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_drawbridge"));
    let own = binary.parent().expect("a folder").to_owned();
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths([own].into_iter().chain(env::split_paths(&path))).expect("a path")
}

#[test]
fn every_command_of_the_runnable_pages_runs_in_a_checkout() {
    let (mut run, mut not_run, mut up) = (0, 0, None);
    let checkout = checkout();
    for block in RUN.iter().flat_map(|page| blocks(page)) {
        let Some(info) = block.info.strip_prefix("sh") else { continue };
        let place = format!("{}:{}", block.page, block.line);
        if let Some(reason) = info.trim().strip_prefix("no-run") {
            assert!(
                reason.strip_prefix(':').is_some_and(|why| why.trim().len() > 10),
                "{place}: say why"
            );
            not_run += 1;
            continue;
        }
        let script = block.text.replace("cargo run -- ", "drawbridge ");
        let needs_mesh =
            ["drawbridge call", "drawbridge revoke"].iter().any(|it| script.contains(it));
        if needs_mesh && up.is_none() {
            up = Some(Up::start());
        }
        let state = up.as_ref().map_or(checkout.0.path(), |up| up.state.path());
        let mut bash = Process::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).current_dir(checkout.0.path());
        bash.env("PATH", path_with_the_binary()).env("DRAWBRIDGE_STATE_DIR", state);
        let output = bash.output().expect("bash");
        assert!(output.status.success(), "{place}:\n{script}\n{}", text(&output.stderr));
        run += 1;
    }
    assert!(run >= 2 && not_run <= NOT_RUN_MAX, "{run} blocks are run, {not_run} are not");
}

#[test]
fn examples_do_not_use_names_of_shipped_services() {
    for block in EXAMPLES.iter().flat_map(|page| blocks(page)) {
        if let Some((_, path)) =
            block.info.split_once(' ').filter(|(_, path)| path.starts_with("policies/"))
        {
            let is_shipped = Path::new(REPOSITORY).join(path).exists();
            assert!(!is_shipped, "{}:{}: {path} is there already", block.page, block.line);
        }
        if block.info != "proto" {
            continue;
        }
        for namespace in ["code", "invoices", "tickets"] {
            let (quoted, prefix) = (format!("\"{namespace}\""), format!("{namespace}_"));
            let collides = block.text.contains(&quoted) || block.text.contains(&prefix);
            let place = format!("{}:{}", block.page, block.line);
            assert!(!collides, "{place}: {namespace} is a shipped service");
        }
    }
}

/// The words of a shell line, without its comment and without expansion.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut chars) =
        (Vec::new(), None::<String>, None, line.chars());
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (char, Some(open)) if char == open => quote = None,
            (char, Some(_)) => word.get_or_insert_default().push(char),
            ('\'' | '"', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (char, None) if char.is_whitespace() => words.extend(word.take()),
            (char, None) => word.get_or_insert_default().push(char),
        }
    }
    assert!(quote.is_none(), "a quote without an end: {line}");
    words.extend(word);
    words
}

/// The commands of this repository's binaries in a shell script, split into words.
fn commands(script: &str) -> Vec<Vec<String>> {
    let joined = script.replace("\\\n", " ").replace("cargo run -- ", "drawbridge ");
    let mut commands = Vec::new();
    for line in joined.lines() {
        let words = shell_words(line);
        for command in words.split(|word| ["|", "&&", ";", ">", ">>", "<"].contains(&word.as_str()))
        {
            let is_variable = |word: &&String| word.contains('=') && !word.starts_with('-');
            // An ellipsis may be among the variables.
            let left_out = command.iter().any(|word| word.ends_with('…')).then(|| "…".to_owned());
            let command = command.iter().skip_while(is_variable).filter(|word| *word != "…");
            let command: Vec<_> = command.cloned().chain(left_out).collect();
            if command
                .first()
                .is_some_and(|name| name == "drawbridge" || name.starts_with("drawbridge-"))
            {
                commands.push(command);
            }
        }
    }
    commands
}

/// Commands in inline code spans, which may omit arguments.
fn spans(page: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let fenced: BTreeSet<_> = blocks(page).into_iter().map(|block| block.text).collect();
    let text = fenced.iter().fold(text, |text, block| text.replace(block.as_str(), ""));
    let spans = text.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "));
    spans.filter(|span| span.starts_with("drawbridge ")).flat_map(|span| commands(&span)).collect()
}

/// The command line of `drawbridge` or of a service.
fn command_line_of(name: &str) -> Option<Command> {
    if name == "drawbridge" {
        return Some(command_line::command());
    }
    let service = name.strip_prefix("drawbridge-")?;
    services().into_iter().find_map(|(name, command)| (name == service).then_some(command))
}

#[test]
fn the_binaries_accept_every_documented_command() {
    let (mut seen, mut problems) = (0, Vec::new());
    let mut check = |page: &str, words: &[String], is_partial: bool| {
        let left_out = is_partial || words.iter().any(|word| word == "…");
        let words: Vec<_> = words.iter().filter(|word| *word != "…").collect();
        let Some(command) = command_line_of(words[0]) else { return };
        seen += 1;
        if let Err(error) = command.try_get_matches_from(&words) {
            let lacks = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::MissingSubcommand,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                ErrorKind::InvalidValue,
            ];
            let is_help_or_version =
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let is_left_out = left_out && lacks.contains(&error.kind());
            if !(is_help_or_version || is_left_out) {
                problems.push(format!("{page}: {words:?}\n{error}"));
            }
        }
    };
    for page in pages() {
        for block in blocks(&page).iter().filter(|block| block.info.starts_with("sh")) {
            // Variables may provide required options.
            let is_partial = block.text.contains("export ");
            commands(&block.text).iter().for_each(|words| check(&page, words, is_partial));
        }
        spans(&page).iter().for_each(|words| check(&page, words, true));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(seen >= 40, "{seen}");
}

/// All options of all commands and services, and their variables.
fn known() -> (BTreeSet<String>, BTreeSet<String>) {
    fn collect(command: &Command, known: &mut (BTreeSet<String>, BTreeSet<String>)) {
        for argument in command.get_arguments() {
            known.0.extend(
                argument.get_long_and_visible_aliases().into_iter().flatten().map(str::to_owned),
            );
            known.0.extend(argument.get_all_aliases().into_iter().flatten().map(str::to_owned));
            known.1.extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
        }
        command.get_subcommands().for_each(|command| collect(command, known));
    }
    let mut all = (BTreeSet::new(), BTreeSet::new());
    collect(&command_line::command(), &mut all);
    services().iter().for_each(|(_, command)| collect(command, &mut all));
    all.0.extend(["help", "version"].map(str::to_owned));
    all
}

/// The words of a text with this prefix, without trailing punctuation.
fn words<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(beginning).filter_map(move |(at, _)| {
        let is_begin = !text[..at].chars().next_back().is_some_and(is_word);
        let rest = &text[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        is_begin.then(|| rest[..end].trim_end_matches(['-', '_']))
    })
}

#[test]
fn every_documented_option_and_variable_exists() {
    let (options, variables) = known();
    let mut problems = Vec::new();
    for page in pages() {
        let text = read(&page);
        // Blocks are skipped: they may be about another program.
        let spans: Vec<_> = blocks(&page)
            .iter()
            .fold(text.clone(), |text, block| text.replace(&block.text, ""))
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        for span in spans.iter().filter(|span| span.starts_with("--")) {
            for option in words(span, "--").map(|option| option.trim_start_matches('-')) {
                let is_known = options.contains(option)
                    || options.iter().any(|known| known.starts_with(&format!("{option}-")))
                    || FOREIGN_OPTIONS.contains(&option);
                if !is_known {
                    problems.push(format!("{page}: there is no option --{option}"));
                }
            }
        }
        for variable in words(&text, "DRAWBRIDGE_") {
            let is_known = variables.contains(variable)
                || variables.iter().any(|known| known.starts_with(&format!("{variable}_")))
                || OTHER_VARIABLES.contains(&variable);
            if !is_known {
                problems.push(format!("{page}: there is no variable {variable}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The Rust files below a folder, without those of tests.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            into.push(path);
        }
    }
}

/// Regression: a message of auth named fields of a file although a flag was used.
#[test]
fn messages_name_only_options_of_their_binary() {
    let (all, _) = known();
    for (service, command) in services() {
        let own: BTreeSet<_> =
            command.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let mut files = Vec::new();
        let folder = ["services", "services/tools"]
            .map(|folder| Path::new(REPOSITORY).join(folder).join(service).join("src"));
        sources(folder.iter().find(|folder| folder.exists()).expect("its folder"), &mut files);
        for file in files {
            let code = fs::read_to_string(&file).expect("a file");
            let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for line in code.lines().filter(|line| line.trim_start().starts_with("#[error(")) {
                for option in words(line, "--").map(|option| option.trim_start_matches('-')) {
                    assert!(
                        own.contains(option),
                        "{}: {service} has no --{option}: {line}",
                        file.display()
                    );
                }
            }
        }
    }
    let mut files = Vec::new();
    sources(&Path::new(REPOSITORY).join("sdk"), &mut files);
    for file in files {
        let code = fs::read_to_string(&file).expect("a file");
        for line in code.lines().filter(|line| line.trim_start().starts_with("#[error(")) {
            for option in words(line, "--").map(|option| option.trim_start_matches('-')) {
                assert!(all.contains(option), "{}: there is no --{option}: {line}", file.display());
            }
        }
    }
}
