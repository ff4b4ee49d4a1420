//! Generated policy folders.

use std::{fmt::Write as _, fs, path::Path};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_tests::repository;
use serde_json::json;
use tempfile::TempDir;

pub(crate) const TOOLS_OF_A_SERVICE: usize = 10;
/// One in this many policies has no scope.
const UNSCOPED: usize = 25;

/// A policy folder.
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    /// Generates a folder with these numbers of policies and tools.
    pub(crate) fn new(policies: usize, tools: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        fs::create_dir(folder.path().join("catalog")).expect("a folder");
        let base = fs::read_to_string(repository().join("policies/mcp.cedarschema"))
            .expect("the base schema");
        write("mcp.cedarschema", &base);
        let (schema, entities) = catalog(tools);
        write("catalog/all.cedarschema", &schema);
        write("catalog/all.entities.json", &entities);
        let services = tools.div_ceil(TOOLS_OF_A_SERVICE);
        let all: String = (0..policies).map(|number| policy(number, services)).collect();
        write("all.cedar", &all);
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn tool(&self, number: usize) -> pb::CatalogItem {
        pb::CatalogItem {
            name: format!("tool-{number}"),
            service: format!("service-{}", number / TOOLS_OF_A_SERVICE),
            rpc: format!("bench.Service/Tool{number}"),
            scopes: Vec::new(),
        }
    }

    /// Edits one policy.
    pub(crate) fn edit(&self) {
        replace(self.path(), "all.cedar", "client-never", "client-nowhere");
    }
}

/// Replaces the first occurrence of a text in a file of a folder.
pub(crate) fn replace(folder: &Path, file: &str, text: &str, with: &str) {
    let path = folder.join(file);
    let before = fs::read_to_string(&path).expect("the file");
    assert!(before.contains(text), "{file} has no {text}");
    fs::write(path, before.replacen(text, with, 1)).expect("the file");
}

fn catalog(tools: usize) -> (String, String) {
    let (mut schema, mut entities) = (String::new(), Vec::new());
    for number in 0..tools {
        let service =
            json!({ "type": "Service", "id": format!("service-{}", number / TOOLS_OF_A_SERVICE) });
        if number % TOOLS_OF_A_SERVICE == 0 {
            entities.push(json!({ "uid": service, "attrs": {}, "parents": [] }));
        }
        let group = if number % 2 == 0 { "write_tool" } else { "read_tool" };
        let _ = writeln!(
            schema,
            "action \"tool-{number}\" in [{group}] appliesTo {{ principal: [User, Workload], resource: Tool, \
             context: {{ \"input\": {{ \"amount\": Long, \"note\": String, \"draft\": Bool }} }} }};"
        );
        entities.push(json!({
            "uid": { "type": "Tool", "id": format!("tool-{number}") },
            "attrs": {
                "rpc": format!("bench.Service/Tool{number}"), "read_only": number % 2 == 1,
                "destructive": number % 2 == 0, "idempotent": false, "open_world": false,
            },
            "parents": [service],
        }));
    }
    (schema, serde_json::Value::Array(entities).to_string())
}

/// The first policies decide in the benchmark; the others are for other groups, clients and tools.
fn policy(number: usize, services: usize) -> String {
    let service = number % services;
    let body = match number {
        1 => "permit (principal in Group::\"group-1\", action in Action::\"read_tool\", resource in Service::\"service-0\");"
            .to_owned(),
        2 => "permit (principal in Group::\"group-2\", action == Action::\"tool-0\", resource) \
              when { context.input.amount < 10 };"
            .to_owned(),
        _ if number.is_multiple_of(UNSCOPED) => format!(
            "forbid (principal, action, resource) when {{ resource is Tool && resource.destructive && !principal.mfa \
             && principal.client == \"client-never-{number}\" }};"
        ),
        _ if number.is_multiple_of(3) => format!(
            "permit (principal in Group::\"group-{number}\", action in Action::\"call_tool\", \
             resource in Service::\"service-{service}\") when {{ principal.mfa }};"
        ),
        _ => format!(
            "permit (principal in Group::\"group-{number}\", action == Action::\"tool-{}\", resource) \
             when {{ context.input.amount < {number} }};",
            service * TOOLS_OF_A_SERVICE
        ),
    };
    format!("@id(\"policy-{number}\")\n{body}\n\n")
}
