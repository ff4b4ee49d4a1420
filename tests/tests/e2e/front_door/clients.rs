//! Real clients of the field run the whole flow: each signs in where it can, lists, calls and
//! reads, is denied, gets progress, cancels, loses its session, takes a broken stream up again, and
//! works through proxies.
//!
//! `tests/clients` has one program per language. [`CLIENTS`] says which releases and revisions run,
//! and what a client cannot do; docs/edge.md has the same table.

use std::{fmt::Write as _, fs};

use drawbridge_tests::repository;

use self::field::Field;

mod checks;
mod control;
mod field;
mod proxies;
mod rust;

const MARCH_2025: &str = "2025-03-26";
const JUNE_2025: &str = "2025-06-18";
const NOVEMBER_2025: &str = "2025-11-25";
const STATELESS: &str = "2026-07-28";

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// Lists, calls and reads in the real mesh, and calls what it is denied.
    Flow,
    /// A long call that reports progress, and is silent before its end.
    Progress,
    /// Cancels a call: the service stops.
    Cancel,
    /// The stream of a call breaks, and is taken up again with `Last-Event-ID`.
    BrokenStream,
    /// The server ends the session: the client gets 404 with -32001, and starts again.
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

    /// What the clients' programs call it.
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

    /// Whether there is such a thing in a revision.
    fn is_in(self, revision: &str) -> bool {
        revision != STATELESS || !matches!(self, Self::BrokenStream | Self::LostSession)
    }
}

/// How a client gets its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// It registers and signs in.
    SignsIn,
    /// It is given one.
    Given,
}

/// A client of the field.
#[derive(Debug)]
struct Client {
    /// The folder of DRAWBRIDGE_TOOLS that has it.
    name: &'static str,
    /// How its program names itself.
    release: &'static str,
    revisions: &'static [&'static str],
    access: Access,
    /// What it cannot do, and why.
    cannot: &'static [(Scenario, &'static str)],
}

const CLIENTS: [Client; 11] = [
    Client {
        name: "python",
        release: "python mcp 2.3.0",
        revisions: &[NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        cannot: &[],
    },
    Client {
        name: "python-1.20",
        release: "python mcp 1.20.0",
        revisions: &[JUNE_2025],
        access: Access::SignsIn,
        cannot: &[(Scenario::Cancel, "it does not tell the server that its caller has given up")],
    },
    Client {
        name: "fastmcp",
        release: "fastmcp 4.2.3",
        revisions: &[NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        cannot: &[],
    },
    Client {
        name: "typescript-2",
        release: "@modelcontextprotocol/client 2.4.0",
        revisions: &[JUNE_2025, NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        cannot: &[],
    },
    Client {
        name: "node",
        release: "@modelcontextprotocol/sdk 1.32.2",
        revisions: &[NOVEMBER_2025],
        access: Access::SignsIn,
        cannot: &[],
    },
    Client {
        name: "typescript-1.20",
        release: "@modelcontextprotocol/sdk 1.20.2",
        revisions: &[JUNE_2025],
        access: Access::SignsIn,
        cannot: &[],
    },
    Client {
        name: "mcp-remote",
        release: "mcp-remote 0.15.1",
        revisions: &[JUNE_2025, NOVEMBER_2025],
        access: Access::SignsIn,
        cannot: &[],
    },
    Client {
        name: "go",
        release: "go-sdk v1.8.0",
        revisions: &[JUNE_2025, NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        cannot: &[],
    },
    Client {
        name: "java",
        release: "java 2.1.0",
        revisions: &[JUNE_2025, NOVEMBER_2025],
        access: Access::Given,
        cannot: &[
            (Scenario::Cancel, "it has no way to cancel a call"),
            (Scenario::BrokenStream, "it waits for the rest of the stream until its timeout"),
        ],
    },
    Client {
        name: "java-0.11",
        release: "java 0.11.3",
        revisions: &[MARCH_2025],
        access: Access::Given,
        cannot: &[
            (Scenario::Cancel, "it has no way to cancel a call"),
            (Scenario::BrokenStream, "it waits for the rest of the stream until its timeout"),
        ],
    },
    Client {
        name: "rmcp",
        release: "rmcp 3.11",
        revisions: &[JUNE_2025, NOVEMBER_2025, STATELESS],
        access: Access::SignsIn,
        cannot: &[],
    },
];

impl Client {
    fn of(name: &str) -> &'static Self {
        CLIENTS.iter().find(|client| client.name == name).expect("a client")
    }

    /// What it does in a revision. What it does not do is printed: nothing is left out in silence.
    #[expect(clippy::print_stdout, reason = "what is not tested is what a person wants to know")]
    fn scenarios(&self, revision: &str) -> Vec<Scenario> {
        for (scenario, reason) in self.cannot {
            println!("{} in {revision}: no {}: {reason}", self.release, scenario.name());
        }
        let can = |scenario: &Scenario| self.cannot.iter().all(|(cannot, _)| cannot != scenario);
        Scenario::ALL.into_iter().filter(|scenario| scenario.is_in(revision)).filter(can).collect()
    }

    /// Its line of the table in docs/edge.md.
    fn row(&self) -> String {
        let mut row = format!("| {} | {} |", self.release, self.revisions.join(", "));
        for scenario in Scenario::ALL {
            let cannot = self.cannot.iter().find(|(cannot, _)| *cannot == scenario);
            let cell = match cannot {
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

/// Runs the programs of these clients, in each revision that they have.
async fn run(names: &[&str]) {
    let field = Field::start().await;
    for client in names.iter().map(|name| Client::of(name)) {
        for revision in client.revisions {
            let scenarios = client.scenarios(revision);
            let seen = field.run(client, revision, &scenarios).await;
            checks::check(client, revision, &scenarios, &seen);
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
    let field = Field::start().await;
    let client = Client::of("rmcp");
    for revision in client.revisions {
        let scenarios = client.scenarios(revision);
        let seen = rust::run(&field, revision, &scenarios).await;
        checks::check(client, revision, &scenarios, &seen);
    }
}

#[test]
fn the_documentation_lists_the_clients_that_are_tested() {
    let docs = fs::read_to_string(repository().join("docs/edge.md")).expect("the page");
    for client in &CLIENTS {
        let row = client.row();
        assert!(docs.contains(&format!("\n{row}\n")), "docs/edge.md lacks the line\n{row}");
    }
}
