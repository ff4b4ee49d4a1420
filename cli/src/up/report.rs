//! What `drawbridge up` says once the mesh runs.
use comfy_table::{Cell, Color, Table};
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    Up, UpArgs,
    dependencies::{Dependency, Standing},
    own_services::OwnService,
};
use crate::mesh::Mesh;

pub(super) fn as_json(up: &Up) -> Value {
    let mesh = &up.mesh;
    let service =
        |name: &str, address: fn(&crate::mesh::Hosted) -> String| mesh.service(name).map(address);
    let mut services: Map<_, _> = ["edge", "auth", "code", "invoices", "tickets", "idp"]
        .into_iter()
        .map(|name| {
            let address = service(name, |service| service.running.address.to_string());
            let admin = service(name, |service| service.running.admin.to_string());
            (name.to_owned(), json!({ "address": address, "admin": admin }))
        })
        .collect();
    for OwnService { namespace, urls, unreachable, to_do } in &up.own_services {
        let state = if unreachable.is_some() { "unreachable" } else { "real" };
        let said = json!({ "urls": urls, "state": state, "reason": unreachable, "toDo": to_do });
        services.insert(namespace.clone(), said);
    }
    let dependencies: Vec<_> = up
        .dependencies
        .iter()
        .map(|dependency| {
            let (state, reason) = state(&dependency.standing);
            json!({ "name": dependency.key, "state": state, "reason": reason, "which": dependency.which })
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

/// A word for how a dependency stands, and why if it does not answer.
fn state(standing: &Standing) -> (&'static str, Option<&str>) {
    match standing {
        Standing::Real => ("real", None),
        Standing::Embedded => ("embedded", None),
        Standing::Unreachable(why) => ("unreachable", Some(why)),
        Standing::None => ("none", None),
    }
}

pub(super) fn as_text(up: &Up) -> String {
    let Up { args, mesh, dependencies, own_services } = up;
    let mcp_url = &mesh.mcp_url;
    let to_do: String = own_services.iter().flat_map(to_do).collect();
    format!(
        "\n{}\n\n{}\n{to_do}
MCP URL      {mcp_url}
Users        {}

Claude Code     claude mcp add --transport http drawbridge {mcp_url}
MCP Inspector   npx @modelcontextprotocol/inspector    then connect to {mcp_url} (Streamable HTTP)
curl            curl -i -X POST {mcp_url}    (401: it names where to get a token)
Internal call   drawbridge call code Search '{{\"query\":\"fn main\"}}'

Ctrl-C ends it.",
        services_table(mesh, own_services),
        dependencies_table(dependencies),
        users(args),
    )
}

fn users(args: &UpArgs) -> String {
    match (&args.issuer, &args.users) {
        (Some(issuer), _) => format!("those of {issuer}"),
        (None, None) => {
            "alice (engineering), bob (support), carol (auditor), erin (approves invoices), and of another tenant dave \
             (engineering), frank (support); password as name"
                .to_owned()
        }
        (None, Some(path)) => format!("those of {}", path.display()),
    }
}

fn to_do(service: &OwnService) -> impl Iterator<Item = String> {
    service.to_do.iter().map(|sentence| format!("\n{}: {sentence}\n", service.namespace))
}

fn services_table(mesh: &Mesh, own_services: &[OwnService]) -> Table {
    let mut table = new_table(["service", "what it is", "address", "health and metrics"]);
    let rows = [
        ("edge", "MCP over HTTP in, gRPC out", "http://"),
        ("auth", "tokens and policies (gRPC)", ""),
        ("code", "searches a source tree (gRPC)", ""),
        ("invoices", "reads, keeps and approves invoices (gRPC)", ""),
        ("tickets", "works on support tickets (gRPC)", ""),
        ("idp", "OAuth 2.1 authorization server", "http://"),
    ];
    for (name, what, scheme) in rows {
        let Some(service) = mesh.service(name) else { continue };
        let address = format!("{scheme}{}", service.running.address);
        let admin = format!("http://{}/readyz", service.running.admin);
        table.add_row([name, what, &address, &admin]);
    }
    for OwnService { namespace, urls, unreachable, .. } in own_services {
        let urls = urls.iter().map(Url::as_str).collect::<Vec<_>>().join(" ");
        let (stands, color) = match unreachable {
            Some(why) => (format!("unreachable: {why}"), Color::Red),
            None => ("gives its contract".to_owned(), Color::Green),
        };
        table.add_row([
            Cell::new(namespace),
            Cell::new("your own tool service (gRPC)"),
            Cell::new(urls),
            Cell::new(stands).fg(color),
        ]);
    }
    table
}

/// What stands behind the services: real things, or embedded stand-ins.
fn dependencies_table(dependencies: &[Dependency]) -> Table {
    let mut table = new_table(["behind them", "", "which"]);
    for Dependency { what, standing, which, .. } in dependencies {
        let color = match standing {
            Standing::Real => Color::Green,
            Standing::Embedded | Standing::None => Color::Yellow,
            Standing::Unreachable(_) => Color::Red,
        };
        let said = match state(standing) {
            (state, Some(why)) => format!("{state}: {why}"),
            (state, None) => state.to_owned(),
        };
        table.add_row([Cell::new(what), Cell::new(said).fg(color), Cell::new(which)]);
    }
    table
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = crate::table::new();
    table.set_header(header);
    table
}
