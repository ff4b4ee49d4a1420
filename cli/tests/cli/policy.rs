//! `drawbridge policy`, in temporary folders.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{REPOSITORY, drawbridge, text};

mod bundles;
mod mistakes;

/// A copy of this repository's policies, for the test to change.
pub(crate) struct Folder(pub(crate) TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        copy(&Path::new(REPOSITORY).join("policies"), folder.path());
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("a file");
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.0.path().join(name);
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.contains(from), "{name} does not contain {from}");
        fs::write(path, text.replacen(from, to, 1)).expect("a file");
    }

    fn run(&self, code: i32, arguments: &[&str]) -> String {
        self.run_in(code, &[arguments, &["--policies", "."]].concat())
    }

    /// Runs `drawbridge policy` on the folder that the arguments name, and returns its output.
    fn run_in(&self, code: i32, arguments: &[&str]) -> String {
        let mut command = drawbridge(self.0.path());
        let result = command
            .current_dir(self.0.path())
            .arg("policy")
            .args(arguments)
            .output()
            .expect("the binary");
        let output = format!("{}{}", text(&result.stdout), text(&result.stderr));
        assert_eq!(result.status.code(), Some(code), "{arguments:?}: {output}");
        assert!(!output.contains('\x1b'), "there is no terminal: {output:?}");
        output
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.run(code, &[arguments, &["--json"]].concat());
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file");
        }
    }
}

#[test]
fn the_shipped_policies_are_valid_and_their_cases_pass() {
    let folder = Folder::new();
    assert!(folder.run(0, &["check", "--deny-warnings"]).contains(": ok"));
    assert!(folder.run(0, &["test"]).contains(" 0 failed"));
    assert_eq!(folder.json(0, &["check"])["ok"], true);
}

#[test]
fn check_reports_file_line_and_caret_of_every_error() {
    let folder = Folder::new();
    folder.write(
        "wrong.cedar",
        "// A comment.\n@id(\"a\")\npermit (principal, action == Action::\"code_serch\", \
         resource);\n\n\
         permit (principal in Group::\"x\", action, resource);\n@id(\"code-no-secrets\")\n\
         forbid (principal in Group::\"x\", action, resource);\n",
    );
    folder.write("syntax.cedar", "@id(\"b\")\npermit (principal, action, resource) when { ;\n");
    folder.write(
        "entities/groups.json",
        "[\n  { \"uid\": { \"type\": \"Grp\", \"id\": \"a\" } }\n]\n",
    );
    let output = folder.run(1, &["check"]);
    for wanted in [
        "error: ./wrong.cedar:5:1: this policy has no @id",
        "5 | permit (principal in Group::\"x\", action, resource);\n  | ^^^^^^",
        "./syntax.cedar:2:45: unexpected token `;`",
        "2 | permit (principal, action, resource) when { ;\n  \
         |                                             ^\n",
        "./entities/groups.json:2:12: a member must be a User, Workload, Group or Role, not Grp",
    ] {
        assert!(output.contains(wanted), "{wanted}\nis not in\n{output}");
    }
    // Errors that are found only once everything parses.
    fs::remove_file(folder.0.path().join("syntax.cedar")).expect("a removable file");
    folder.edit("wrong.cedar", "\n\npermit", "\n\n@id(\"c\") permit");
    let report = folder.json(1, &["check"]);
    let problems: Vec<_> = report["problems"].as_array().into_iter().flatten().collect();
    let at = |message: &str| {
        let found = problems
            .iter()
            .find(|problem| problem["message"].as_str().is_some_and(|is| is.contains(message)));
        found.unwrap_or_else(|| panic!("{message} is not in {report:#}"))["place"].clone()
    };
    assert_eq!(at("unrecognized action")["line"], 3);
    assert_eq!(at("unrecognized action")["column"], 30);
    assert_eq!(at("is already used at ./code.cedar:")["line"], 6);
    assert_eq!(report["ok"], false);
}

#[test]
fn a_likely_mistake_is_a_warning() {
    let folder = Folder::new();
    folder.write(
        "loose.cedar",
        "@id(\"loose\")\n@owner(\"us\")\npermit (principal, action, resource) when { \
         principal.mfa };\n",
    );
    let output = folder.run(0, &["check"]);
    assert!(
        output.contains(
            "warning: ./loose.cedar:2:1: the annotation @owner is unknown and has no effect"
        ),
        "{output}"
    );
    assert!(output.contains("./loose.cedar:3:1: the policy \"loose\" has no scope"), "{output}");
    assert!(output.ends_with(": 2 warnings\n"), "{output}");
    folder.run(1, &["check", "--deny-warnings"]);
}

#[test]
fn a_failed_case_is_shown_as_a_diff() {
    let folder = Folder::new();
    folder.edit("code.cedar", r#"Group::"engineering""#, r#"Group::"support""#);
    let output = folder.run(1, &["test"]);
    assert!(
        output.contains(
            "FAILED an engineer of acme searches\n       ./tests/code.json:2\n       \
             - allow by code-for-engineering\n       + deny by no policy (NotPermitted)\n"
        ),
        "{output}"
    );
    let report = folder.json(1, &["test", "support does not search"]);
    assert_eq!(report["cases"][0]["passed"], false);
    assert_eq!(report["cases"][0]["policies"], json!(["code-for-engineering"]));

    folder
        .write("tests/code.json", r#"[{ "name": "x", "action": "code_serch", "expect": "deny" }]"#);
    assert!(
        folder
            .run(1, &["test"])
            .contains("./tests/code.json:1:2: the catalog has no action \"code_serch\"")
    );
    folder.write(
        "tests/code.json",
        r#"[{ "name": "x", "action": "code_search", "expects": "deny" }]"#,
    );
    assert!(folder.run(2, &["test"]).contains("./tests/code.json:1:42: unknown field `expects`"));
    folder.write("tests/code.json", "[]");
    folder.write("tests/invoices.json", "[]");
    folder.write("tests/tickets.json", "[]");
    assert!(folder.run(2, &["test"]).contains("no case in "));
}

#[test]
fn explain_shows_the_deciding_policies_and_those_that_permit_others() {
    let folder = Folder::new();
    let engineer = ["--tenant", "acme", "--group", "engineering"];
    let explain = |code, rest: &[&str]| folder.run(code, &[&["explain"], rest].concat());

    let output = explain(0, &[&["code_search", r#"{"query":"x"}"#], &engineer[..]].concat());
    assert!(
        output.starts_with("code_search is allowed\n\ncode-for-engineering permits  ./code.cedar:"),
        "{output}"
    );
    assert!(output.contains("\n      principal in Group::\"engineering\",\n"), "{output}");

    let output = explain(1, &[&["code_file", r#"{"path":"a.pem"}"#], &engineer[..]].concat());
    assert!(
        output.contains("code_file is denied: a policy forbids it\n\ncode-no-secrets forbids  "),
        "{output}"
    );
    let output = explain(1, &["code_search", "--group", "support"]);
    assert!(output.contains("denied: no policy permits it"), "{output}");
    assert!(output.contains("code-for-engineering permits others"), "{output}");
    assert!(
        explain(1, &["code_search", r#"{"query":1}"#]).contains("do not match the action's schema")
    );
    assert!(explain(2, &["code_serch"]).contains("the catalog has no code_serch; it has "));

    let report = folder.json(0, &[&["explain", "code_file"], &engineer[..]].concat());
    assert_eq!(report["answer"], "conditional");
    assert_eq!(report["policies"][0]["id"], "code-for-engineering");
    assert_eq!(report["policies"][1]["says"], "conditional");
}

#[test]
fn who_can_shows_a_column_per_group_and_role() {
    let folder = Folder::new();
    folder.write(
        "more.cedar",
        "@id(\"m\") permit (principal in Group::\"ops\", action == Action::\"code_search\", \
         resource)\n\
         when { principal.mfa };\n",
    );
    let output = folder.run(0, &["who-can", "code_search"]);
    // Split into as many tables as needed.
    let tables: Vec<_> =
        output.split("For callers").next().unwrap_or_default().split("════\n").collect();
    let row =
        |table: &str| table.lines().find(|line| line.contains("code_search")).map(str::to_owned);
    let rows: Vec<_> = tables.iter().filter_map(|table| row(table)).collect();
    assert!(rows[0].contains(" - ") && rows[0].contains("yes"), "{output}");
    for text in ["anyone", "engineering", "on-call", "with mfa", "ops", "workloads:"] {
        assert!(output.contains(text), "{text}: {output}");
    }
    let rows = folder.json(0, &["who-can", "code_file"]);
    let auditors = rows.as_array().into_iter().flatten().find(|row| row["id"] == "auditor");
    assert_eq!(auditors.expect("a row")["may"][0]["user"], "some");
    folder.run(2, &["who-can", "nonsense"]);
}

/// A recorded decision on `item` for an engineer of Acme.
fn recorded(request: &str, item: &str, outcome: &str, arguments: Option<Value>) -> Value {
    let rpc = match item {
        "code_file" => "drawbridge.code.v1.CodeService/ReadFile",
        _ => "drawbridge.code.v1.CodeService/Search",
    };
    let operation = if item == "code_file" { "KIND_READ_RESOURCE" } else { "KIND_CALL_TOOL" };
    let mut record = json!({
        "v": 1, "log": "auth/auth-0/20260101T000000000Z", "seq": 0, "prev": "0".repeat(64),
        "time": "2026-01-01T00:00:00Z", "event": "decision", "request_id": request,
        "issuer": "https://idp.example", "subject": "alice",
        "client_id": "c", "tenant": "acme", "groups": ["engineering"],
        "operation": operation, "item": item,
        "service": "code", "rpc": rpc, "argument_digest": "00",
        "outcome": outcome, "policy_revision": "x",
        "latency_us": 12,
    });
    if let Some(arguments) = arguments {
        record["arguments"] = arguments;
    }
    record
}

#[test]
fn diff_reports_decisions_that_would_change_and_those_that_depend_on_arguments() {
    let folder = Folder::new();
    let search = json!({
        "query": "x", "regex": false, "glob": "", "path": "",
        "ignore_case": false, "context_lines": 0,
    });
    let log = [
        recorded("r1", "code_search", "allow", Some(search)),
        recorded("r2", "code_search", "allow", None),
        recorded("r3", "code_file", "allow", Some(json!({ "path": "a.txt" }))),
        recorded("r4", "code_file", "allow", Some(json!({ "path": "secret/a.txt" }))),
        recorded("r5", "code_file", "allow", None),
    ];
    let lines: String = log.iter().map(|record| format!("{record}\n")).collect();
    folder.write("log.jsonl", &lines);
    let other = Folder::new();
    let path = other.0.path().display().to_string();
    let diff_of = |log: &str, code, arguments: &[&str]| {
        let mut command = drawbridge(folder.0.path());
        command
            .current_dir(folder.0.path())
            .args(["policy", "diff", &path, "--log", log])
            .args(arguments);
        let output = command.output().expect("the binary");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout).to_owned()
    };
    let diff = |code, arguments: &[&str]| diff_of("log.jsonl", code, arguments);
    // The outcome of r5 depends on its arguments.
    assert!(diff(1, &[]).contains("5 decisions: 0 would change, 1 depend on arguments"));

    other.edit("code.cedar", r#""*.env""#, r#""*.env" || context.input.path like "secret/*""#);
    other.write(
        "no-search.cedar",
        "@id(\"no-search\") forbid (principal, action == Action::\"code_search\", resource);",
    );
    let output = diff(1, &[]);
    assert!(output.contains("5 decisions: 3 would change, 1 depend on arguments"), "{output}");
    assert!(
        output.contains("code_search  Allow → Forbidden by no-search  2 times, such as r1"),
        "{output}"
    );
    let report: Value = serde_json::from_str(&diff(1, &["--json"])).expect("JSON");
    let changed = |request: &str| {
        let mut changes = report["changes"].as_array().into_iter().flatten();
        changes.find(|change| change["request_id"] == request).cloned().unwrap_or_default()
    };
    assert_eq!(changed("r4")["policy_ids"], json!(["code-no-secrets"]));
    assert_eq!(
        (&changed("r5")["depends_on_arguments"], changed("r3")),
        (&json!(true), Value::Null)
    );

    let output = folder.run(0, &["explain", "--log", "log.jsonl", "--request", "r3"]);
    assert!(output.starts_with("code_file is allowed\n"), "{output}");
    // As auth writes it: a folder with one file per day.
    fs::create_dir(folder.0.path().join("log")).expect("a folder");
    for (day, record) in log.iter().enumerate() {
        folder.write(&format!("log/2026-01-0{}.{day:012}.jsonl", day + 1), &format!("{record}\n"));
    }
    assert!(diff_of("log", 1, &[]).contains("5 decisions: 3 would change, 1 depend on arguments"));
    fs::remove_file(folder.0.path().join("log/2026-01-05.000000000004.jsonl"))
        .expect("a removable file");
    let same = ["diff", ".", "--log", "log"];
    assert_eq!(
        folder.run_in(0, &same),
        "4 decisions: 0 would change, 0 depend on arguments that were not recorded\n"
    );
    folder.write("log.jsonl", "{}\n");
    assert!(
        folder
            .run(2, &["explain", "--log", "log.jsonl", "--request", "r3"])
            .contains("log.jsonl:1")
    );
}

/// The fenced blocks of a page whose first line names a file below `policies/`. Blocks of the same
/// file are concatenated.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else { continue };
        let (language, path) = info.split_once(' ').unwrap_or((info, ""));
        let text: String = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        if !["cedar", "cedarschema", "json"].contains(&language) {
            continue;
        }
        let path = path
            .strip_prefix("policies/")
            .unwrap_or_else(|| panic!("no test runs this block:\n{text}"));
        match files.iter_mut().find(|(there, _)| there == path) {
            Some((_, all)) => all.push_str(&format!("\n{text}")),
            None => files.push((path.to_owned(), text)),
        }
    }
    files
}

#[test]
fn every_policy_in_the_documentation_is_valid_and_its_cases_pass() {
    let folder = Folder::new();
    let pages = ["write-policies", "test-policies"].map(|page| {
        let file = Path::new(REPOSITORY).join(format!("docs/how-to/{page}.md"));
        fs::read_to_string(file).expect("the page")
    });
    let blocks = blocks(&pages.concat());
    let policies = blocks.iter().map(|(_, text)| text.matches("@id(").count()).sum::<usize>();
    assert!(policies >= 8, "the page has {policies} policies");
    for (path, text) in &blocks {
        folder.write(path, text);
    }
    folder.run(0, &["check", "--deny-warnings"]);
    let report = folder.json(0, &["test"]);
    let own = Path::new(REPOSITORY).join("policies/tests/code.json");
    let own: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(own).expect("cases")).expect("cases");
    assert!(
        report["cases"].as_array().is_some_and(|cases| cases.len() >= own.len() + 10),
        "{report}"
    );
}
