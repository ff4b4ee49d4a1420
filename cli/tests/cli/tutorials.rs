//! The tutorials, run from their own text in an empty folder.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use self::reader::{Reader, SERVICE_ADDRESS};
use crate::{
    commands::docs::{Block, blocks},
    up::{ChildGuard, tool},
};

mod reader;

/// The clients of the first tool, by a word of the block that calls it, and what its output has.
const CLIENTS: [(&str, &str); 2] =
    [("drawbridge tools call", ""), ("mcpdo tools/call", "\"booked_by\": \"alice\"")];
/// How many commands take a reader from a new service to a call. The limit is exclusive.
const COMMANDS_MAX: usize = 10;

/// The blocks of a tutorial that a reader runs. The other ones belong to one language or one tool.
fn tutorial(page: &str) -> Vec<Block> {
    let blocks = blocks(&format!("docs/tutorials/{page}.md")).into_iter();
    blocks.filter(|block| ["sh", "sh terminal"].contains(&block.info.as_str())).collect()
}

/// The block that starts a mesh.
fn start() -> Block {
    tutorial("first-call").swap_remove(0)
}

#[test]
fn every_command_of_the_tutorials_runs_in_their_order() {
    let mut reader = Reader::new();
    let pages = ["first-call", "first-policy", "first-limit"];
    let blocks: Vec<_> = pages.iter().flat_map(|page| tutorial(page)).collect();
    blocks.iter().for_each(|block| drop(reader.run(block)));
    assert!(blocks.len() >= 15, "only {} blocks were run", blocks.len());
}

#[test]
fn every_command_of_the_page_on_diagnosis_runs() {
    let mut reader = Reader::new();
    reader.run(&start());
    let blocks: Vec<_> =
        blocks("docs/how-to/diagnose.md").into_iter().filter(|it| it.info == "sh").collect();
    blocks.iter().for_each(|block| drop(reader.run(block)));
    assert!(blocks.len() >= 4, "only {} blocks were run", blocks.len());
}

/// The commands of a block: its lines, and the parts of a line that are joined by `&&`.
fn commands(block: &Block) -> (usize, usize) {
    assert!(!block.text.contains("<<"), "a here-document would count as several commands");
    (block.text.lines().count(), block.text.lines().flat_map(|line| line.split(" && ")).count())
}

/// Runs the first tool in one language. Each client calls it after less than ten lines from
/// `drawbridge init` on, and after less than ten commands from `drawbridge new` on.
fn check_first_tool(language: &str) {
    // The service has one port.
    static PORT: Mutex<()> = Mutex::new(());
    let _port = PORT.lock().unwrap_or_else(PoisonError::into_inner);
    TcpListener::bind(SERVICE_ADDRESS).expect("no other service on the port");
    let mut reader = Reader::new();
    let start = start();
    let mut lines = commands(&start).0;
    reader.run(&start);

    let (of_language, mut before) = (format!("sh {language}"), 0);
    let mut clients = CLIENTS.into_iter().peekable();
    for block in blocks("docs/tutorials/first-tool.md") {
        if !["sh", "sh terminal", &of_language].contains(&block.info.as_str()) {
            continue;
        }
        let output = reader.run(&block);
        let here = commands(&block);
        if let Some((_, expected)) = clients.next_if(|(word, _)| block.text.contains(word)) {
            assert!(block.text.contains("rooms_book") && output.contains(expected), "{output}");
            assert!(lines + here.0 < COMMANDS_MAX, "{lines} lines before {}", block.text);
            assert!(before + here.1 < COMMANDS_MAX, "{before} commands before {}", block.text);
        } else {
            (lines, before) = (lines + here.0, before + here.1);
        }
    }
    assert_eq!(clients.next(), None, "a client calls the tool");
}

#[test]
fn the_first_tool_in_python_is_called_after_less_than_ten_commands() {
    check_first_tool("python");
}

#[test]
fn the_first_tool_in_rust_is_called_after_less_than_ten_commands() {
    check_first_tool("rust");
}

#[test]
fn the_first_tool_in_go_is_called_after_less_than_ten_commands() {
    check_first_tool("go");
}

#[test]
#[ignore = "it needs Jaeger, which takes minutes to build: make jaeger-test"]
fn the_first_call_is_one_trace_at_jaeger() {
    let mut jaeger = Command::new(tool("jaeger/jaeger"));
    jaeger.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _jaeger = ChildGuard(jaeger.spawn().expect("Jaeger"));
    let mut reader = Reader::new();
    reader.run(&start());
    reader.stop();
    let blocks = blocks("docs/tutorials/first-call.md").into_iter();
    let blocks: Vec<_> = blocks.filter(|block| block.info == "sh trace").collect();
    assert_eq!(blocks.len(), 2);
    let mut trace = String::new();
    for block in &blocks {
        trace = reader.run(block);
    }
    // The query is for the edge's span `tools/call code_search`.
    for span in ["AuthService/Authorize", "CodeService/Search"] {
        assert!(trace.contains(span), "{span} is missing: {trace}");
    }
}
