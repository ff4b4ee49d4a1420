//! `--help`, `--version`, completions, man pages and tables, of every command and service.

use std::{
    any::TypeId,
    fs,
    io::{BufRead as _, BufReader},
    process::{Command as Process, Stdio},
};

use clap::Command;
use drawbridge_cli::command_line;
use drawbridge_runtime::env_name;
use secrecy::SecretString;

use crate::{REPOSITORY, drawbridge, text};

/// Options whose variables do not follow the rule: named by a standard, or shared by several
/// commands.
const NAMED_OTHERWISE: [(&str, &str); 24] = [
    ("log-format", "DRAWBRIDGE_LOG_FORMAT"),
    ("log", "DRAWBRIDGE_LOG"),
    ("log-filter-file", "DRAWBRIDGE_LOG_FILTER_FILE"),
    ("log-principals", "DRAWBRIDGE_LOG_PRINCIPALS"),
    ("pseudonym-key-file", "DRAWBRIDGE_PSEUDONYM_KEY_FILE"),
    ("otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("otlp-protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("traces-exporter", "OTEL_TRACES_EXPORTER"),
    ("metrics-exporter", "OTEL_METRICS_EXPORTER"),
    ("logs-exporter", "OTEL_LOGS_EXPORTER"),
    ("traces-sampler", "OTEL_TRACES_SAMPLER"),
    ("traces-sampler-arg", "OTEL_TRACES_SAMPLER_ARG"),
    ("admin-allowed-host", "DRAWBRIDGE_ADMIN_ALLOWED_HOST"),
    ("vault-token", "VAULT_TOKEN"),
    ("database-password", "DRAWBRIDGE_VAULT_DATABASE_PASSWORD"),
    ("allow-non-loopback", "DRAWBRIDGE_IDP_ALLOW_NON_LOOPBACK"),
    ("public-url", "DRAWBRIDGE_EDGE_PUBLIC_URL"),
    ("mesh", "DRAWBRIDGE_MESH"),
    ("url", "DRAWBRIDGE_CLIENT_URL"),
    ("user", "DRAWBRIDGE_CLIENT_USER"),
    ("password", "DRAWBRIDGE_CLIENT_PASSWORD"),
    ("client-id", "DRAWBRIDGE_CLIENT_CLIENT_ID"),
    ("no-browser", "DRAWBRIDGE_CLIENT_NO_BROWSER"),
    ("token", "DRAWBRIDGE_CLIENT_TOKEN"),
];
/// The prefixes of options under each heading. Options without a heading may have any prefix.
const HEADINGS: [(&str, &[&str]); 19] = [
    ("Tool service", &["listen", "admin-listen", "auth-"]),
    ("Telemetry", &["log", "otlp-", "traces-", "metrics-", "pseudonym-", "admin-allowed-host"]),
    ("Between services", &["mtls-", "allow-plaintext", "peers"]),
    ("TLS handshakes", &["handshake"]),
    ("Caller", &["mesh", "auth-", "token", "issuer", "client-", "audience"]),
    ("Audit", &["audit-"]),
    ("Policy bundles", &["policy-", "deny-expired-policies"]),
    ("Vault", &["vault-"]),
    ("AWS Secrets Manager", &["aws-"]),
    ("Azure Key Vault", &["azure-"]),
    ("Request bodies", &["body-bytes", "bodies-", "params-"]),
    ("Refused tokens", &["refused-"]),
    ("Revocation", &["seen-"]),
    ("Event streams", &["stream", "watches-"]),
    ("HTTP server", &["connections-", "idle-", "body-timeout", "send-"]),
    ("Discovery in Kubernetes", &["discover-kubernetes", "kubernetes-"]),
    ("Shutdown", &["drain-"]),
    ("Sign-in", &["mesh", "url", "user", "password", "client-id", "no-browser", "token"]),
    ("Options", &[]),
];

/// The command lines of the services, by name.
pub(super) fn services() -> Vec<(&'static str, Command)> {
    drawbridge_mesh::services().map(|service| (service.name, (service.command)())).collect()
}

/// Visits a command and its subcommands, each with its path. Hidden ones are for contributors.
fn walk<'a>(command: &'a Command, path: &[&'a str], visit: &mut impl FnMut(&[&str], &'a Command)) {
    visit(path, command);
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        walk(subcommand, &[path, &[subcommand.get_name()]].concat(), visit);
    }
}

/// Visits every command of the command line, and every service.
fn everywhere(mut visit: impl FnMut(&[&str], &Command)) {
    walk(&command_line::command(), &[], &mut |path, command| visit(path, command));
    for (name, command) in &services() {
        visit(&[name], command);
    }
}

#[test]
fn every_option_has_an_environment_variable_named_by_the_rule() {
    let (mut options, mut problems) = (0, Vec::new());
    everywhere(|path, command| {
        let path = if path.is_empty() { &["up"] } else { path };
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            options += 1;
            let actual = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            let is_caller_option =
                matches!(argument.get_help_heading(), Some("Caller" | "Between services"));
            // `revoke` shares the caller's variables with `call`.
            let path = if path == ["revoke"] && is_caller_option { &["call"] } else { path };
            let wanted = env_name(path, long);
            let is_listed = |name: &String| NAMED_OTHERWISE.contains(&(long, name.as_str()));
            if !actual.as_ref().is_some_and(|actual| *actual == wanted || is_listed(actual)) {
                problems.push(format!("{path:?} --{long}: {actual:?}, not {wanted}"));
            }
        }
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(options > 200, "{options}");
}

#[test]
fn no_help_shows_a_secret_that_a_variable_holds() {
    let mut secrets = 0;
    everywhere(|path, command| {
        for argument in command.get_arguments() {
            if argument.get_value_parser().type_id() == TypeId::of::<SecretString>() {
                assert!(argument.is_hide_env_values_set(), "{path:?}: {}", argument.get_id());
                secrets += 1;
            }
        }
    });
    assert!(secrets >= 8, "{secrets}");
}

#[test]
fn every_option_is_under_a_fitting_heading() {
    let mut problems = Vec::new();
    everywhere(|path, command| {
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            let heading = argument.get_help_heading().unwrap_or("Options");
            let fits = |beginnings: &[&str]| {
                beginnings.iter().any(|beginning| long.starts_with(beginning))
            };
            match HEADINGS.iter().find(|(known, _)| *known == heading) {
                None => problems.push(format!("{path:?}: {heading} is in no list")),
                Some((_, [])) => {}
                Some((_, beginnings)) if fits(beginnings) => {}
                Some(_) => problems.push(format!("{path:?}: --{long} is not of {heading}")),
            }
        }
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn help_does_not_wrap_examples_or_hard_wrap_sentences() {
    let state = tempfile::tempdir().expect("a folder");
    let mut examples = 0;
    everywhere(|path, command| {
        let Some(after) = command.get_after_help().map(ToString::to_string) else { return };
        let help = drawbridge(state.path()).args(path).arg("--help").env("COLUMNS", "80").output();
        let help = text(&help.expect("the binary").stdout).to_owned();
        for line in after.lines().filter(|line| line.starts_with("  ")) {
            assert!(line.chars().count() <= 80, "{path:?}: {line}");
            assert!(
                help.lines().any(|shown| shown == line),
                "{path:?}: {line} is broken in\n{help}"
            );
            examples += 1;
        }
        let is_prose =
            |line: &&str| !line.is_empty() && !line.starts_with("  ") && *line != "Examples:";
        for (line, next) in after.lines().zip(after.lines().skip(1)) {
            assert!(!(is_prose(&line) && is_prose(&next)), "{path:?}: {line}\n{next}");
        }
    });
    assert!(examples >= 10, "{examples}");
}

#[test]
fn the_version_names_the_commit() {
    let state = tempfile::tempdir().expect("a folder");
    let version = drawbridge(state.path()).arg("--version").output().expect("the binary");
    let version_line = text(&version.stdout).trim_end();
    let git =
        Process::new("git").args(["log", "-1", "--format=%h"]).current_dir(REPOSITORY).output();
    let is_checkout = git.is_ok_and(|git| git.status.success());
    let commit = version_line
        .strip_prefix(concat!("drawbridge ", env!("CARGO_PKG_VERSION")))
        .expect("the version");
    let commit = commit.strip_prefix(" (").and_then(|rest| rest.split_whitespace().next());
    let is_commit =
        commit.is_some_and(|name| name.len() >= 7 && name.chars().all(|c| c.is_ascii_hexdigit()));
    assert_eq!(is_commit, is_checkout, "{version_line}");
}

#[test]
fn shells_complete_every_command_and_its_options() {
    let state = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output =
            drawbridge(state.path()).args(["completions", shell]).output().expect("the binary");
        assert!(output.status.success(), "{shell}: {}", text(&output.stderr));
        for word in ["who-can", "bootstrap", "completions", "free-ports", "deny-warnings"] {
            assert!(text(&output.stdout).contains(word), "{shell} does not complete {word}");
        }
    }
    // Bash accepts the script, and completes a word with it.
    let script = "source <(\"$0\" completions bash)\nCOMP_WORDS=(drawbridge policy who); \
        COMP_CWORD=2\n\
                  _drawbridge drawbridge who policy; echo \"${COMPREPLY[*]}\"";
    let bash = Process::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_drawbridge")]).output();
    let bash = bash.expect("bash");
    assert_eq!(text(&bash.stdout), "who-can\n", "{}", text(&bash.stderr));
}

#[test]
fn every_command_has_a_man_page() {
    let state = tempfile::tempdir().expect("a folder");
    let folder = state.path().join("man/man1");
    let run = |arguments: &[&str]| {
        let output = drawbridge(state.path()).args(arguments).output().expect("the binary");
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    let first = run(&["man"]);
    assert!(text(&first).contains(".TH drawbridge 1"), "{}", text(&first));
    run(&["man", folder.to_str().expect("a path")]);
    let mut pages = 0;
    walk(&command_line::command(), &["drawbridge"], &mut |path, command| {
        let page =
            fs::read_to_string(folder.join(format!("{}.1", path.join("-")))).expect("a page");
        for argument in command.get_arguments().filter_map(|argument| argument.get_env()) {
            assert!(
                page.contains(&argument.to_string_lossy().into_owned()),
                "{path:?}: {argument:?}"
            );
        }
        pages += 1;
    });
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), pages);
}

#[test]
fn tables_fit_the_width_without_breaking_words() {
    let state = tempfile::tempdir().expect("a folder");
    for (columns, width) in [(None, 100), (Some("80"), 80), (Some("60"), 60)] {
        let mut command = drawbridge(state.path());
        command.args(["policy", "who-can"]).current_dir(REPOSITORY).env_remove("COLUMNS");
        command.envs(columns.map(|columns| ("COLUMNS", columns)));
        let output = command.output().expect("the binary");
        let table = text(&output.stdout);
        let lines = table.lines().filter(|line| !line.starts_with("For callers"));
        for line in lines {
            assert!(line.chars().count() <= width, "{} columns: {line}", line.chars().count());
        }
        let mut rows = table.lines().filter(|line| line.trim_start().starts_with("code_search "));
        assert!(rows.any(|row| row.contains("yes")), "{table}");
        for word in
            ["anyone", "engineering", "authorization-server", "invoice-approver", "workloads:"]
        {
            assert!(table.contains(word), "{word} is broken in\n{table}");
        }
    }
}

#[test]
fn the_tables_of_up_fit_the_width() {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = drawbridge(state.path());
    command.args(["up", "--free-ports", "--embedded", "--log", "off"]).env("COLUMNS", "80");
    let mut up =
        command.current_dir(REPOSITORY).stdout(Stdio::piped()).spawn().expect("the binary");
    let lines = BufReader::new(up.stdout.take().expect("its output"))
        .lines()
        .map(|line| line.expect("text"));
    let tables: Vec<_> = lines.take_while(|line| !line.starts_with("MCP URL")).collect();
    Process::new("kill").args(["-INT", &up.id().to_string()]).status().expect("kill");
    up.wait().expect("an end");
    assert!(tables.iter().any(|line| line.contains("authorization server")), "{tables:#?}");
    for line in tables {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
}
