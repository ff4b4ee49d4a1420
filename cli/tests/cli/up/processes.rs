//! The mesh by hand, as docs/how-to/add-a-service.md shows it.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use super::{ChildGuard, client::Client, first_port};
use crate::REPOSITORY;

/// The commands of the page with this prefix, split into words.
fn commands(begin: &str) -> Vec<Vec<String>> {
    let page = Path::new(REPOSITORY).join("docs/how-to/add-a-service.md");
    let page = fs::read_to_string(page).expect("the page");
    let (_, section) = page.split_once("## Run each service as a process").expect("its section");
    let lines = section.lines().filter_map(|line| line.strip_prefix("$ "));
    let commands = lines.filter(|line| line.starts_with(begin));
    commands.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn until_it_listens(port: u16) {
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing listens on port {port}");
}

#[tokio::test]
async fn the_documented_processes_form_a_mesh() {
    let binary = Path::new(env!("CARGO_BIN_EXE_drawbridge"));
    let target = binary.parent().and_then(Path::parent).expect("the target folder");
    let [build] = &commands("cargo build")[..] else { panic!("the page shows one build") };
    let mut building = Command::new(env!("CARGO"));
    building.args(&build[1..]).args(["--locked", "--quiet", "--target-dir"]).arg(target);
    assert!(building.current_dir(REPOSITORY).status().expect("cargo").success(), "{build:?}");

    // A running mesh may use the documented ports, so the test shifts them.
    let first = first_port();
    let shifted = |port: u16| first + (port - 7100);
    let address = |port: u16| format!("127.0.0.1:{}", shifted(port));
    let shown = commands("target/debug/");
    assert_eq!(shown.len(), 4, "{shown:?}");
    let mut processes = Vec::new();
    for command in &shown {
        let program = command[0].strip_prefix("target/debug/").expect("a program");
        let (service, port) = match program {
            "drawbridge-idp" => ("IDP", 7100),
            "drawbridge-auth" => ("AUTH", 7110),
            "drawbridge-edge" => ("EDGE", 7180),
            _ => ("CODE", 7210),
        };
        let arguments = command[1..].iter().map(|word| {
            [7100, 7180, 7210].iter().fold(word.clone(), |word, port| {
                word.replace(&format!("127.0.0.1:{port}"), &address(*port))
            })
        });
        let mut running = Command::new(binary.with_file_name(program));
        running.args(arguments).current_dir(REPOSITORY).stdout(Stdio::null());
        running.env(format!("DRAWBRIDGE_{service}_LISTEN"), address(port));
        running
            .env(format!("DRAWBRIDGE_{service}_ADMIN_LISTEN"), address(port + 1))
            .env("DRAWBRIDGE_LOG", "error");
        // Values that default to the documented ports.
        running.env("DRAWBRIDGE_IDP_RESOURCES", format!("http://{}/mcp", address(7180)));
        running.env("DRAWBRIDGE_EDGE_PUBLIC_URL", format!("http://{}/mcp", address(7180)));
        running.env("DRAWBRIDGE_EDGE_AUTH_URL", format!("http://{}", address(7110)));
        running.env(
            "DRAWBRIDGE_CODE_AUTH_JWKS_URL",
            format!("http://{}/.well-known/jwks.json", address(7111)),
        );
        processes
            .push(ChildGuard(running.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))));
        until_it_listens(shifted(port));
    }

    let (mcp, issuer) =
        (format!("http://{}/mcp", address(7180)), format!("http://{}", address(7100)));
    let alice = Client::sign_in(&mcp, &issuer, "alice").await;
    alice.until_it_sees("code_list_files").await;
    let list = json!({ "name": "code_list_files", "arguments": { "glob": "Cargo.toml" } });
    let (status, response) = alice.call("tools/call", list).await;
    assert_eq!((status, &response["result"]["isError"]), (200, &json!(false)), "{response}");
}
