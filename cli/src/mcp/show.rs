//! Results and notifications for people.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use crate::table;

/// Prints lists as tables.
pub(super) fn lists(lists: &[(&str, Vec<Value>)]) {
    if lists.iter().all(|(_, items)| items.is_empty()) {
        let kind = lists.first().map_or("items", |(kind, _)| kind);
        anstream::eprintln!("this caller sees no {kind}");
    }
    for (kind, items) in lists.iter().filter(|(_, items)| !items.is_empty()) {
        let id = match *kind {
            "resources" => "uri",
            "resourceTemplates" => "uriTemplate",
            _ => "name",
        };
        let mut table = table::new();
        table.set_header([if id == "uriTemplate" { "uri template" } else { id }, "description"]);
        for item in items {
            table.add_row([string(&item[id]), first_sentence(item)]);
        }
        anstream::println!("{table}");
    }
}

/// The beginning of an item's description, or else its title.
fn first_sentence(item: &Value) -> String {
    let text = [&item["description"], &item["title"]].map(string);
    let text = text.iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.split_once(". ").map_or(line, |(first, _)| first).trim_end_matches('.').to_owned()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Prints a tool's result: its structured content, or else its content.
pub(super) fn tool_result(result: &Value) {
    match &result["structuredContent"] {
        Value::Null => anstream::println!("{}", text(result)),
        structured => anstream::println!("{structured:#}"),
    }
}

/// The content of a result as text.
pub(super) fn text(result: &Value) -> String {
    let blocks = result["content"].as_array().into_iter().flatten().map(block);
    blocks.collect::<Vec<_>>().join("\n")
}

/// A piece of content as text.
fn block(block: &Value) -> String {
    match block["type"].as_str() {
        Some("text") => string(&block["text"]),
        Some("resource_link") => string(&block["uri"]),
        Some("resource") => match block["resource"]["text"].as_str() {
            Some(text) => text.to_owned(),
            None => string(&block["resource"]["uri"]),
        },
        kind => format!("[{}: {}]", kind.unwrap_or("content"), string(&block["mimeType"])),
    }
}

/// Prints the messages of a prompt.
pub(super) fn messages(result: &Value) {
    for message in result["messages"].as_array().into_iter().flatten() {
        anstream::println!("{}: {}", string(&message["role"]), block(&message["content"]));
    }
}

/// Prints the contents of a resource: text, or bytes where standard output is no terminal.
pub(super) fn contents(result: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for contents in result["contents"].as_array().into_iter().flatten() {
        let bytes = match contents["blob"].as_str() {
            Some(blob) => BASE64.decode(blob).context("the contents are not base64")?,
            None => string(&contents["text"]).into_bytes(),
        };
        if contents["blob"].is_string() && out.is_terminal() {
            let kind = string(&contents["mimeType"]);
            anstream::eprintln!("{} bytes of {kind}: redirect the output into a file", bytes.len());
            continue;
        }
        out.write_all(&bytes).context("cannot write to standard output")?;
        let is_line = contents["blob"].is_string() || bytes.ends_with(b"\n");
        if !is_line {
            out.write_all(b"\n").context("cannot write to standard output")?;
        }
    }
    Ok(())
}

/// Prints a notification of a call: progress, or a log message.
pub(super) fn notification(message: &Value) {
    let params = &message["params"];
    match message["method"].as_str() {
        Some("notifications/progress") => {
            let total = params["total"].as_f64();
            let total = total.map_or(String::new(), |total| format!(" of {total}"));
            let progress = params["progress"].as_f64().unwrap_or_default();
            let text = string(&params["message"]);
            anstream::eprintln!("{}", format!("{progress}{total} {text}").trim_end());
        }
        Some("notifications/message") => {
            let data = match &params["data"] {
                Value::String(text) => text.clone(),
                data => data.to_string(),
            };
            let logger = string(&params["logger"]);
            let logger = if logger.is_empty() { logger } else { format!(" {logger}") };
            anstream::eprintln!("{}{logger}: {data}", string(&params["level"]));
        }
        _ => {}
    }
}
