//! `drawbridge config`, on files with planted mistakes.
//!
//! In such a file a comment `# ! problem ~ help` is what the check must report for its line: how
//! the problem begins and, where it is given, the help. In JSON it begins with `//`, and is
//! removed.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::{REPOSITORY, drawbridge, text};

/// Kind, name and text of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("edge", "edge.toml", include_str!("config/edge.toml")),
    ("issuers", "issuers.toml", include_str!("config/issuers.toml")),
    ("users", "users.toml", include_str!("config/users.toml")),
    ("setup", "setup.toml", include_str!("config/setup.toml")),
    ("policy-keys", "policy-keys.toml", include_str!("config/policy-keys.toml")),
    ("members", "entities/members.json", include_str!("config/members.json")),
    ("cases", "tests/cases.json", include_str!("config/cases.json")),
];

/// Writes the files.
fn write_files(folder: &Path) {
    for (_, name, content) in FILES {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let without_comments = |line: &str| match line.split_once(" // ! ") {
            Some((json, _)) => format!("{json}\n"),
            None => format!("{line}\n"),
        };
        fs::write(path, content.lines().map(without_comments).collect::<String>()).expect("a file");
    }
}

fn config(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let mut command = drawbridge(folder);
    let result = command.current_dir(folder).arg("config").args(arguments).output();
    let result = result.expect("the binary");
    let output = format!("{}{}", text(&result.stdout), text(&result.stderr));
    assert_eq!(result.status.code(), Some(code), "{arguments:?}: {output}");
    assert!(!output.contains('\x1b'), "there is no terminal: {output:?}");
    output
}

/// The planted mistakes of a file: line, how the problem begins, and the help.
fn planted(file: &str) -> Vec<(u64, &str, Option<&str>)> {
    let lines = (1..).zip(file.lines());
    let planted = lines.filter_map(|(line, text)| {
        let comment = text.split_once("# ! ").or_else(|| text.split_once("// ! "))?;
        Some((line, comment.1))
    });
    planted
        .map(|(line, comment)| match comment.split_once(" ~ ") {
            Some((problem, help)) => (line, problem, Some(help)),
            None => (line, comment, None),
        })
        .collect()
}

#[test]
fn all_planted_mistakes_of_all_files_are_reported_in_one_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut arguments = vec!["check", "--json"];
    write_files(folder.path());
    arguments.extend(FILES.iter().map(|(_, name, _)| *name));
    let report: Value =
        serde_json::from_str(&config(folder.path(), 1, &arguments)).expect("a report");
    assert_eq!(report["ok"], false);
    let mut count = 0;
    let reports = report["files"].as_array().expect("files");
    for (report, (kind, _, content)) in reports.iter().zip(FILES) {
        assert_eq!(report["kind"], *kind);
        let mistakes = report["mistakes"].as_array().expect("mistakes");
        let planted = planted(content);
        count += planted.len();
        for (line, problem, help) in &planted {
            let is_it = |mistake: &&Value| {
                mistake["line"] == *line
                    && mistake["problem"].as_str().is_some_and(|text| text.starts_with(problem))
                    && help.is_none_or(|help| mistake["help"] == help)
            };
            assert!(mistakes.iter().any(|mistake| is_it(&mistake)), "{kind}:{line}: {mistakes:#?}");
        }
        let lines: BTreeSet<_> = planted.iter().map(|(line, ..)| *line).collect();
        for mistake in mistakes {
            let line = mistake["line"].as_u64().expect("a line");
            assert!(lines.contains(&line), "{kind}: not planted: {mistake}");
        }
        assert_eq!(mistakes.len(), planted.len(), "{kind}: {mistakes:#?}");
    }
    assert!(count >= 40, "only {count} mistakes are planted");
}

#[test]
fn each_mistake_is_shown_with_its_line_and_a_caret() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    for (kind, name, content) in FILES.iter().filter(|(kind, ..)| *kind != "users") {
        let output = config(folder.path(), 1, &["check", name]);
        let planted = planted(content);
        for (line, problem, help) in &planted {
            let begin = output.find(&format!("{name}:{line}:")).expect("the place");
            let block = &output[begin..];
            let end = block[1..].find(name).map_or(block.len(), |end| end + 1);
            let block = &block[..end];
            assert!(block.contains(problem), "{block}");
            assert!(block.contains(&format!("\n{line} | ")), "{block}");
            assert!(block.lines().any(|line| line.trim_start_matches([' ', '|']).starts_with('^')));
            assert!(help.is_none_or(|help| block.contains(&format!("= help: {help}"))), "{block}");
        }
        let last = output.trim_end().lines().last().expect("a summary");
        assert_eq!(last, format!("{name}: {} mistakes ({kind})", planted.len()));
    }
}

#[test]
fn a_mistake_in_a_file_with_passwords_is_shown_with_its_line_number_only() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    for arguments in [["check", "users.toml"].as_slice(), &["check", "--json", "users.toml"]] {
        let output = config(folder.path(), 1, arguments);
        assert!(!output.contains("hunter2") && !output.contains("12345"), "{output}");
    }
    let output = config(folder.path(), 1, &["check", "users.toml"]);
    for (line, problem, _) in planted(include_str!("config/users.toml")) {
        let block = output.lines().find(|text| text.starts_with(&format!("users.toml:{line}:")));
        assert!(block.is_some_and(|block| block.contains(problem)), "{line} {problem}: {output}");
    }
    assert!(!output.contains('^') && !output.contains(" | "), "{output}");
}

#[test]
fn the_exit_code_and_the_summary_distinguish_right_wrong_and_unreadable_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    write("edge.toml", "[cache]\nenabled = false\n");
    write("other.toml", "[limits]\nreplica = 2\n");
    write("unknown.toml", "a = 1\n");
    let check =
        |code, arguments: &[&str]| config(folder.path(), code, &[&["check"], arguments].concat());
    assert_eq!(check(0, &["edge.toml"]), "edge.toml: ok (edge)\n");
    let output = check(1, &["edge.toml", "other.toml"]);
    insta::assert_snapshot!(output, @"
    edge.toml: ok (edge)
    other.toml:2:1: unknown field `replica`, expected `replicas` or `redis_timeout_ms`
      |
    2 | replica = 2
      | ^^^^^^^
      = help: did you mean `replicas`?

    other.toml: 1 mistake (edge)
    ");
    assert!(check(2, &["unknown.toml"]).contains("cannot tell the kind of unknown.toml"));
    assert!(check(2, &["edge.toml", "none.toml"]).contains("cannot read none.toml"));
    assert!(check(2, &["--kind", "egde", "edge.toml"]).contains("[possible values: edge, issuers"));
    assert!(check(1, &["--kind", "edge", "unknown.toml"]).contains("unknown field `a`"));

    // A service that a flag of the edge names, and a lock that the file names.
    write("edge.toml", "[concurrency]\nservice = { billing = 5 }\n");
    assert!(check(1, &["edge.toml"]).contains("no service has the namespace \"billing\""));
    check(0, &["--service", "billing", "edge.toml"]);
    write("edge.toml", "[catalog]\nlock = \"catalog.lock\"\n");
    assert!(check(1, &["edge.toml"]).contains("cannot read catalog.lock"));
    write("catalog.lock", "{}");
    assert!(check(1, &["edge.toml"]).contains("catalog.lock:1:1: missing field `version`"));
}

#[test]
fn the_files_of_this_repository_have_no_mistakes() {
    let files = [
        "cli/init/edge.toml",
        "deploy/keycloak/issuers.toml",
        "deploy/vault/setup.toml",
        "policies/catalog.lock",
        "policies/entities/groups.json",
        "policies/tests/code.json",
        "policies/tests/invoices.json",
        "policies/tests/tickets.json",
        "services/idp/users.toml",
    ];
    config(Path::new(REPOSITORY), 0, &[&["check"], files.as_slice()].concat());
}

#[test]
fn a_schema_has_descriptions_bounds_and_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let schema: Value =
        serde_json::from_str(&config(folder.path(), 0, &["schema", "edge"])).expect("a schema");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let replicas = &schema["$defs"]["LimitsTable"]["properties"]["replicas"];
    insta::assert_json_snapshot!(replicas, @r#"
    {
      "description": "The replicas of the edge. Without Redis, each counts its share of a limit.",
      "type": "integer",
      "minimum": 1,
      "maximum": 10000,
      "default": 1
    }
    "#);
    config(folder.path(), 0, &["schema", "users", "--out", "users.schema.json"]);
    assert!(folder.path().join("users.schema.json").exists());
    assert!(config(folder.path(), 2, &["schema", "catalog-lock"]).contains("has no schema"));
}
