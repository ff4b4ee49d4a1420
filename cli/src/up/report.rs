//! The report of `drawbridge up` once the mesh is running.
use comfy_table::{Cell, Color, Table};
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    RunningMesh, UpArgs,
    dependency_status::{Dependency, DependencyStatus},
    files::Files,
    own_services::OwnService,
};
use drawbridge_mesh::{Mesh, TOOLS};

pub(super) fn as_json(up: &RunningMesh) -> Value {
    let mesh = &up.mesh;
    let service = |name: &str, address: fn(&drawbridge_mesh::HostedService) -> String| {
        mesh.service(name).map(address)
    };
    let tools = TOOLS.iter().map(|tool| tool.name);
    let mut services: Map<_, _> = ["edge", "auth", "idp"]
        .into_iter()
        .chain(tools)
        .map(|name| {
            let address = service(name, |service| service.running.address.to_string());
            let admin = service(name, |service| service.running.admin.to_string());
            (name.to_owned(), json!({ "address": address, "admin": admin }))
        })
        .collect();
    for OwnService { namespace, urls, unreachable, next_steps } in &up.own_services {
        let state = if unreachable.is_some() { "unreachable" } else { "real" };
        let entry =
            json!({ "urls": urls, "state": state, "reason": unreachable, "toDo": next_steps });
        services.insert(namespace.clone(), entry);
    }
    let dependencies: Vec<_> = up
        .dependencies
        .iter()
        .map(|dependency| {
            let (state, reason) = describe(&dependency.status);
            let Dependency { key, which, .. } = dependency;
            json!({ "name": key, "state": state, "reason": reason, "which": which })
        })
        .collect();
    json!({
        "name": mesh.state.name,
        "pid": mesh.state.pid,
        "mcpUrl": mesh.mcp_url,
        "issuer": mesh.state.issuer,
        "services": services,
        "dependencies": dependencies,
    })
}

/// The name of a status, and the reason if the dependency does not answer.
fn describe(status: &DependencyStatus) -> (&'static str, Option<&str>) {
    match status {
        DependencyStatus::Real => ("real", None),
        DependencyStatus::Embedded => ("embedded", None),
        DependencyStatus::Unreachable(why) => ("unreachable", Some(why)),
        DependencyStatus::None => ("none", None),
    }
}

pub(super) fn as_text(up: &RunningMesh) -> String {
    let RunningMesh { args, files, mesh, dependencies, own_services } = up;
    let mcp_url = &mesh.mcp_url;
    let next_steps: String = own_services.iter().flat_map(next_steps).collect();
    format!(
        "\n{}\n\n{}\n{next_steps}
MCP URL      {mcp_url}
Users        {}

AI client       drawbridge client add claude-code    (or cursor, vscode, inspector)
Claude Code     claude mcp add --transport http drawbridge {mcp_url}
MCP Inspector   npx @modelcontextprotocol/inspector    then connect to {mcp_url} (Streamable HTTP)
curl            curl -i -X POST {mcp_url}    (401: its header names where to get a token)
Internal call   drawbridge call code Search '{{\"query\":\"fn main\"}}'

Press Ctrl-C to stop.",
        services_table(mesh, own_services),
        dependencies_table(dependencies),
        users(args, files),
    )
}

fn users(args: &UpArgs, files: &Files) -> String {
    match (&args.issuer, &files.users) {
        (Some(issuer), _) => format!("from {issuer}"),
        (None, None) => {
            "alice (engineering), bob (support), carol (auditor), erin (approves invoices); in \
             another tenant dave (engineering), frank (support); the password is the name"
                .to_owned()
        }
        (None, Some(path)) => format!("from {}", path.display()),
    }
}

fn next_steps(service: &OwnService) -> impl Iterator<Item = String> {
    service.next_steps.iter().map(|sentence| format!("\n{}: {sentence}\n", service.namespace))
}

fn services_table(mesh: &Mesh, own_services: &[OwnService]) -> Table {
    let mut table = new_table(["service", "description", "address", "health and metrics"]);
    let tools = TOOLS.iter().map(|tool| (tool.name, format!("{} (gRPC)", tool.description), ""));
    let mut rows = vec![
        ("edge", "MCP over HTTP in, gRPC out".to_owned(), "http://"),
        ("auth", "tokens and policies (gRPC)".to_owned(), ""),
    ];
    rows.extend(tools);
    rows.push(("idp", "OAuth 2.1 authorization server".to_owned(), "http://"));
    for (name, label, scheme) in rows {
        let Some(service) = mesh.service(name) else { continue };
        let address = format!("{scheme}{}", service.running.address);
        let admin = format!("http://{}/readyz", service.running.admin);
        table.add_row([name, &label, &address, &admin]);
    }
    for OwnService { namespace, urls, unreachable, .. } in own_services {
        let urls = urls.iter().map(Url::as_str).collect::<Vec<_>>().join(" ");
        let (status, color) = match unreachable {
            Some(why) => (format!("unreachable: {why}"), Color::Red),
            None => ("reachable".to_owned(), Color::Green),
        };
        table.add_row([
            Cell::new(namespace),
            Cell::new("your own tool service (gRPC)"),
            Cell::new(urls),
            Cell::new(status).fg(color),
        ]);
    }
    table
}

/// The dependencies: real servers, or embedded substitutes.
fn dependencies_table(dependencies: &[Dependency]) -> Table {
    let mut table = new_table(["dependency", "state", "which"]);
    for Dependency { label, status, which, .. } in dependencies {
        let color = match status {
            DependencyStatus::Real => Color::Green,
            DependencyStatus::Embedded | DependencyStatus::None => Color::Yellow,
            DependencyStatus::Unreachable(_) => Color::Red,
        };
        let entry = match describe(status) {
            (state, Some(why)) => format!("{state}: {why}"),
            (state, None) => state.to_owned(),
        };
        table.add_row([Cell::new(label), Cell::new(entry).fg(color), Cell::new(which)]);
    }
    table
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = crate::table::new();
    table.set_header(header);
    table
}
