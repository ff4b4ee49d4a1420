//! `drawbridge transform try`, on temporary files.

use std::{fs, io::Write as _, path::Path, process::Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{drawbridge, text};

const CONFIG: &str = r#"
[[tool]]
name = "invoices_search"
arguments.fixed = { status = "OPEN" }
arguments.defaults = { page_size = 20 }
request = '''
.page_size = ([.page_size, 50] | min)
| .tenant = $principal.tenant
'''
response = "del(.invoices[]?.iban)"
output_schema = '{ "type": "object", "properties": { "invoices": { "type": "array" } } }'

[[tool]]
name = "endless"
request = "def f: f; f"
"#;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.write("edge.toml", CONFIG);
        folder.write("alice.json", &json!({ "subject": "alice", "tenant": "acme" }).to_string());
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("a file");
    }

    /// Transforms a sample, and returns the output or else the errors.
    fn try_sample(&self, arguments: &[&str], sample: &Value) -> Result<Value, String> {
        let mut command = drawbridge(self.path());
        command.args(["transform", "try", "--config", "edge.toml", "--input", "-"]).args(arguments);
        command
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(sample.to_string().as_bytes()).expect("an input that is read");
        drop(input);
        let output = child.wait_with_output().expect("an end");
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).expect("JSON")),
            false => Err(text(&output.stderr).to_owned()),
        }
    }
}

#[test]
fn try_prints_the_result_of_the_edges_transformations() {
    let folder = Folder::new();
    let request = ["--tool", "invoices_search", "--request", "--principal", "alice.json"];
    let expected = json!({ "page_size": 50, "status": "OPEN", "tenant": "acme" });
    assert_eq!(folder.try_sample(&request, &json!({ "page_size": 500 })), Ok(expected));
    let expected = json!({ "page_size": 20, "status": "OPEN", "tenant": null });
    assert_eq!(folder.try_sample(&request[..2], &json!({})), Ok(expected));
    let response = ["--tool", "invoices_search", "--response"];
    let sample = json!({ "invoices": [{ "id": 1, "iban": "DE02120300000000202051" }] });
    assert_eq!(folder.try_sample(&response, &sample), Ok(json!({ "invoices": [{ "id": 1 }] })));
}

#[test]
fn try_reports_errors() {
    let folder = Folder::new();
    let failure = |arguments: &[&str], sample: Value| {
        folder.try_sample(arguments, &sample).expect_err("a failure")
    };
    let search = ["--tool", "invoices_search", "--response"];
    assert!(
        failure(&search, json!({ "invoices": {} })).contains("does not match its output_schema"),
        "{}",
        failure(&search, json!({ "invoices": {} }))
    );
    assert!(failure(&search, json!([])).contains("not a JSON object"));
    assert!(failure(&["--tool", "other"], json!({})).contains("no entry for the tool \"other\""));
    assert!(
        failure(&["--tool", "endless", "--response"], json!({}))
            .contains("has no response transformation")
    );
    assert!(
        failure(&["--tool", "endless"], json!({})).contains("exceeded the work limit of a program")
    );
    folder.write("alice.json", "{ \"name\": \"alice\" }");
    let principal = ["--tool", "invoices_search", "--principal", "alice.json"];
    assert!(failure(&principal, json!({})).contains("alice.json is not a valid principal"));
    folder.write("edge.toml", &CONFIG.replace("| min", "| mni"));
    let failure = failure(&["--tool", "invoices_search"], json!({}));
    let place = "edge.toml:7:34: the request program does not compile: undefined filter mni/0\n  |\n\
                 7 | .page_size = ([.page_size, 50] | mni)\n  |                                  \
                 ^^^";
    assert!(failure.contains(place), "{failure}");
}
