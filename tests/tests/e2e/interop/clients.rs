//! Real MCP clients run the whole flow: each signs in where it can, lists, calls and reads, is
//! denied, gets progress, cancels, loses its session, resumes a broken stream, and works through
//! proxies.
//!
//! `tests/clients` has one program per language. [`CLIENTS`] lists the tested releases and
//! revisions, and what a client does not support; docs/reference/clients.md has the same table.

use std::{fmt::Write as _, fs};

use drawbridge_tests::repository;

use self::testbed::Testbed;

mod checks;
mod control;
mod proxies;
mod rust;
mod testbed;

const MARCH_2025: &str = "2025-03-26";
const JUNE_2025: &str = "2025-06-18";
const NOVEMBER_2025: &str = "2025-11-25";
const STATELESS: &str = "2026-07-28";

/// A scenario that a client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// Lists, calls and reads in the real mesh, and calls a denied tool.
    Flow,
    /// A long call with progress, then silence before its result.
    Progress,
    /// Cancels a call; the service stops working.
    Cancel,
    /// The stream of a call breaks and is resumed with `Last-Event-ID`.
    BrokenStream,
    /// The server ends the session; the client gets 404 with -32001 and starts a new one.
    LostSession,
    /// Calls through a proxy that buffers, one that closes idle connections, and one that strips
    /// headers.
    Proxies,
}

impl Scenario {
    const ALL: [Self; 6] = [
        Self::Flow,
        Self::Progress,
        Self::Cancel,
        Self::BrokenStream,
        Self::LostSession,
        Self::Proxies,
    ];

    /// Its name in the clients' programs.
    fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Progress => "progress",
            Self::Cancel => "cancel",
            Self::BrokenStream => "broken_stream",
            Self::LostSession => "lost_session",
            Self::Proxies => "proxies",
        }
    }

    /// Whether a revision has this feature.
    fn applies_to(self, revision: &str) -> bool {
        revision != STATELESS || !matches!(self, Self::BrokenStream | Self::LostSession)
    }
}

/// How a client gets its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The client registers and signs in.
    SignsIn,
    /// The test passes a token to the client.
    Given,
}

/// A released MCP client.
#[derive(Debug)]
struct Client {
    /// Its folder in DRAWBRIDGE_TOOLS.
    name: &'static str,
    /// The release that its program reports.
    release: &'static str,
    revisions: &'static [&'static str],
    access: Access,
    /// The scenarios that it does not support, and why.
    unsupported: &'static [(Scenario, &'static str)],
}

const CLIENTS: [Client; 11] = [
    Client {
        name: "python",
        release: "python mcp 2.3.0",
        revisions: &[NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        unsupported: &[],
    },
    Client {
        name: "python-1.20",
        release: "python mcp 1.20.0",
        revisions: &[JUNE_2025],
        access: Access::SignsIn,
        unsupported: &[(Scenario::Cancel, "it sends no cancellation to the server")],
    },
    Client {
        name: "fastmcp",
        release: "fastmcp 4.2.3",
        revisions: &[NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        unsupported: &[],
    },
    Client {
        name: "typescript-2",
        release: "@modelcontextprotocol/client 2.4.0",
        revisions: &[JUNE_2025, NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        unsupported: &[],
    },
    Client {
        name: "node",
        release: "@modelcontextprotocol/sdk 1.32.2",
        revisions: &[NOVEMBER_2025],
        access: Access::SignsIn,
        unsupported: &[],
    },
    Client {
        name: "typescript-1.20",
        release: "@modelcontextprotocol/sdk 1.20.2",
        revisions: &[JUNE_2025],
        access: Access::SignsIn,
        unsupported: &[],
    },
    Client {
        name: "mcp-remote",
        release: "mcp-remote 0.15.1",
        revisions: &[JUNE_2025, NOVEMBER_2025],
        access: Access::SignsIn,
        unsupported: &[],
    },
    Client {
        name: "go",
        release: "go-sdk v1.8.0",
        revisions: &[JUNE_2025, NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        unsupported: &[],
    },
    Client {
        name: "java",
        release: "java 2.1.0",
        revisions: &[JUNE_2025, NOVEMBER_2025],
        access: Access::Given,
        unsupported: &[
            (Scenario::Cancel, "it has no way to cancel a call"),
            (Scenario::BrokenStream, "it waits for the rest of the stream until its timeout"),
        ],
    },
    Client {
        name: "java-0.11",
        release: "java 0.11.3",
        revisions: &[MARCH_2025],
        access: Access::Given,
        unsupported: &[
            (Scenario::Cancel, "it has no way to cancel a call"),
            (Scenario::BrokenStream, "it waits for the rest of the stream until its timeout"),
        ],
    },
    Client {
        name: "rmcp",
        release: "rmcp 3.11",
        revisions: &[JUNE_2025, NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        unsupported: &[],
    },
];

impl Client {
    fn of(name: &str) -> &'static Self {
        CLIENTS.iter().find(|client| client.name == name).expect("a client")
    }

    /// Its scenarios in a revision. Prints the skipped ones, so that none is skipped silently.
    #[expect(clippy::print_stdout, reason = "the output shows the skipped scenarios")]
    fn scenarios(&self, revision: &str) -> Vec<Scenario> {
        for (scenario, reason) in self.unsupported {
            println!("{} in {revision}: no {}: {reason}", self.release, scenario.name());
        }
        let is_supported = |scenario: &Scenario| {
            self.unsupported.iter().all(|(unsupported, _)| unsupported != scenario)
        };
        Scenario::ALL
            .into_iter()
            .filter(|scenario| scenario.applies_to(revision))
            .filter(is_supported)
            .collect()
    }

    /// Its row of the table in docs/reference/clients.md.
    fn row(&self) -> String {
        let mut row = format!("| {} | {} |", self.release, self.revisions.join(", "));
        for scenario in Scenario::ALL {
            let unsupported =
                self.unsupported.iter().find(|(unsupported, _)| *unsupported == scenario);
            let cell = match unsupported {
                Some((_, reason)) => format!("no: {reason}"),
                None if scenario == Scenario::Flow && self.access == Access::Given => {
                    "with a token".to_owned()
                }
                None if scenario == Scenario::Flow => "signs in".to_owned(),
                None => "yes".to_owned(),
            };
            let _ = write!(row, " {cell} |");
        }
        row
    }
}

/// Runs the programs of these clients in each of their revisions.
async fn run(names: &[&str]) {
    let testbed = Testbed::start().await;
    for client in names.iter().map(|name| Client::of(name)) {
        for revision in client.revisions {
            let scenarios = client.scenarios(revision);
            let report = testbed.run(client, revision, &scenarios).await;
            checks::check(client, revision, &scenarios, &report);
        }
    }
}

#[tokio::test]
async fn the_python_sdks_run_the_whole_flow() {
    run(&["python", "python-1.20"]).await;
}

#[tokio::test]
async fn fastmcps_client_runs_the_whole_flow() {
    run(&["fastmcp"]).await;
}

#[tokio::test]
async fn the_typescript_sdks_run_the_whole_flow() {
    run(&["typescript-2", "node", "typescript-1.20"]).await;
}

#[tokio::test]
async fn mcp_remote_runs_the_whole_flow() {
    run(&["mcp-remote"]).await;
}

#[tokio::test]
async fn the_go_sdk_runs_the_whole_flow() {
    run(&["go"]).await;
}

#[tokio::test]
async fn the_java_sdks_run_the_whole_flow() {
    run(&["java", "java-0.11"]).await;
}

#[tokio::test]
async fn the_rust_sdk_runs_the_whole_flow() {
    let testbed = Testbed::start().await;
    let client = Client::of("rmcp");
    for revision in client.revisions {
        let scenarios = client.scenarios(revision);
        let report = rust::run(&testbed, revision, &scenarios).await;
        checks::check(client, revision, &scenarios, &report);
    }
}

#[test]
fn the_documentation_lists_the_clients_that_are_tested() {
    let docs =
        fs::read_to_string(repository().join("docs/reference/clients.md")).expect("the page");
    for client in &CLIENTS {
        let row = client.row();
        assert!(
            docs.contains(&format!("\n{row}\n")),
            "docs/reference/clients.md lacks the line\n{row}"
        );
    }
}
