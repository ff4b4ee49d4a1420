//! `drawbridge tools watch`: changes of the list of tools.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{client::Client, failure::Failure};

/// The pause before a stream that has ended is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Prints the tools that appear, disappear and change, until the process is interrupted.
pub(super) async fn tools(client: Client, json: bool) -> Result<(), Failure> {
    tokio::select! {
        ended = follow(client, json) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow(mut client: Client, json: bool) -> Result<(), Failure> {
    let mut known = None;
    loop {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let mut events = client.open("subscriptions/listen", params, &[]).await?;
        // Changes before the acknowledgement, and while there was no stream, are in the list.
        while let Some(message) = events.next().await.unwrap_or(None) {
            if let Some(error) = message.get("error") {
                return Err(Failure::tool(error["message"].to_string()));
            }
            let method = message["method"].as_str().unwrap_or_default();
            let changes_list = method == "notifications/subscriptions/acknowledged"
                || method == "notifications/tools/list_changed";
            if changes_list {
                let now = by_name(client.list("tools").await?);
                print(known.as_ref(), &now, json);
                known = Some(now);
            }
        }
        // Streams end with their token, and when the edge restarts.
        tokio::time::sleep(RECONNECT).await;
    }
}

fn by_name(tools: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |tool: &Value| tool["name"].as_str().unwrap_or_default().to_owned();
    tools.into_iter().map(|tool| (name(&tool), tool)).collect()
}

/// Prints the first list, or what has changed.
fn print(before: Option<&BTreeMap<String, Value>>, now: &BTreeMap<String, Value>, json: bool) {
    let Some(before) = before else {
        let names: Vec<_> = now.keys().collect();
        if json {
            anstream::println!("{}", json!({ "tools": names }));
        } else {
            anstream::println!("watching {} tools", names.len());
        }
        return;
    };
    let added = now.keys().filter(|name| !before.contains_key(*name)).collect::<Vec<_>>();
    let removed = before.keys().filter(|name| !now.contains_key(*name)).collect::<Vec<_>>();
    let is_changed = |name: &&String| before.get(*name).is_some_and(|tool| now[*name] != *tool);
    let changed = now.keys().filter(is_changed).collect::<Vec<_>>();
    if added.is_empty() && removed.is_empty() && changed.is_empty() {
        return;
    }
    if json {
        let change = json!({ "added": added, "removed": removed, "changed": changed });
        anstream::println!("{change}");
        return;
    }
    for (sign, names) in [("+", added), ("-", removed), ("~", changed)] {
        for name in names {
            anstream::println!("{sign} {name}");
        }
    }
}
