//! `drawbridge trace` and `drawbridge logs`: the story of one call in the mesh of `drawbridge up`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use drawbridge_mesh::{
    calls::{CallsQuery, RecordedCall, RecordedLine, TRACES_MAX, query},
    state::{MeshArgs, MeshLookup},
};
use drawbridge_runtime::RequestId;
use serde_json::{Value, json};

use self::tree::Tree;

mod lines;
mod tree;

/// How often the mesh is asked for new log lines.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Which call.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge trace
  drawbridge trace 01979c6e-5a3f-7b1c-a3a5-0f2d9d0a6b11
  drawbridge trace 01979c6e-5a3f-7b1c-a3a5-0f2d9d0a6b11 --attributes

`drawbridge up` has the last 1,000 calls in memory. The request id is in every response \
(x-request-id), error and log line.")]
pub struct TraceArgs {
    /// The id of the request. Absent: that of the latest one of a client.
    request_id: Option<RequestId>,

    #[command(flatten)]
    mesh: MeshArgs,

    /// Print all attributes of spans.
    #[arg(long)]
    attributes: bool,

    /// Print spans and log lines as JSON.
    #[arg(long)]
    json: bool,
}

/// Which log lines.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge logs
  drawbridge logs --follow
  drawbridge logs 01979c6e-5a3f-7b1c-a3a5-0f2d9d0a6b11 --json

`drawbridge up` has the lines of the last 1,000 calls, and 1,000 others, in memory: those that its \
--log lets through.")]
pub struct LogsArgs {
    /// The id of a request. Absent: the lines of all requests, and others.
    request_id: Option<RequestId>,

    #[command(flatten)]
    mesh: MeshArgs,

    /// Print new lines as they come, until interrupted.
    #[arg(long, conflicts_with = "request_id")]
    follow: bool,

    /// Print each line as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `drawbridge trace`.
///
/// # Errors
/// When no mesh is running, or it does not know the request.
pub async fn run(args: TraceArgs) -> anyhow::Result<()> {
    let socket = socket(&args.mesh)?;
    let id = match &args.request_id {
        Some(id) => id.to_string(),
        None => latest(&socket).await?,
    };
    let call = call(&socket, &id).await?;
    if args.json {
        anstream::println!("{}", serde_json::to_string_pretty(&call)?);
    } else {
        anstream::println!("{}", story(&call, args.attributes));
    }
    Ok(())
}

/// Runs `drawbridge logs`.
///
/// # Errors
/// When no mesh is running, or it does not know the request.
pub async fn logs(args: LogsArgs) -> anyhow::Result<()> {
    let socket = socket(&args.mesh)?;
    if let Some(id) = &args.request_id {
        print(&call(&socket, id.as_str()).await?.lines, args.json)?;
        return Ok(());
    }
    let mut after = 0;
    loop {
        let new: Vec<RecordedLine> = query(&socket, &CallsQuery::Lines(after)).await?;
        after = new.last().map_or(after, |line| line.number);
        print(&new, args.json)?;
        if !args.follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

fn socket(mesh: &MeshArgs) -> anyhow::Result<PathBuf> {
    match mesh.find()? {
        MeshLookup::Running(state) => state.calls_socket.with_context(|| {
            format!("the mesh {} records no calls: see its first lines for the reason", state.name)
        }),
        MeshLookup::None(advice) => bail!(
            "no mesh that records calls: {advice} (`drawbridge up`). For other meshes, see the log \
             and the traces of your collector by the request id"
        ),
    }
}

async fn latest(socket: &std::path::Path) -> anyhow::Result<String> {
    let requests: Vec<String> = query(socket, &CallsQuery::Requests).await?;
    requests.into_iter().next().context("the mesh has recorded no call yet")
}

async fn call(socket: &std::path::Path, id: &str) -> anyhow::Result<RecordedCall> {
    let call: Option<RecordedCall> = query(socket, &CallsQuery::Call(id.to_owned())).await?;
    call.with_context(|| {
        format!(
            "the mesh has no request {id}: it may have been another mesh's, or one before the \
             last {TRACES_MAX}"
        )
    })
}

fn print(lines: &[RecordedLine], as_json: bool) -> anyhow::Result<()> {
    for line in lines {
        if as_json {
            let line = json!({ "service": line.service, "fields": line.fields });
            anstream::println!("{}", serde_json::to_string(&line)?);
        } else {
            anstream::println!("{}", lines::show(line));
        }
    }
    Ok(())
}

/// The story of a call: what was decided, what happened, what was logged.
fn story(call: &RecordedCall, with_attributes: bool) -> String {
    let mut story = format!("request  {}\n", call.request_id);
    if !call.trace_id.is_empty() {
        story += &format!("trace    {}\n", call.trace_id);
    }
    let decisions = decisions(call);
    for decision in decisions {
        story += &format!("decision {decision}\n");
    }
    let tree = Tree::new(&call.spans);
    if let Some(outcome) = tree.outcome() {
        story += &format!("outcome  {outcome}\n");
    }
    let spans = tree.draw(with_attributes);
    if !spans.is_empty() {
        story += &format!("\n{spans}");
    }
    let lines: Vec<_> = call.lines.iter().map(lines::show).collect();
    if !lines.is_empty() {
        story += &format!("\n{}\n", lines.join("\n"));
    }
    story.trim_end().to_owned()
}

/// What policies decided, without duplicates: from log lines of decisions, or else from spans.
fn decisions(call: &RecordedCall) -> Vec<String> {
    let lines = call.lines.iter().map(|line| &line.fields);
    let is_decision =
        |fields: &&BTreeMap<String, Value>| fields.get("message") == Some(&json!("decision"));
    let mut decisions: Vec<_> = lines.filter(is_decision).filter_map(decision).collect();
    if decisions.is_empty() {
        decisions.extend(call.spans.iter().filter_map(|span| decision(&span.attributes)));
    }
    decisions.dedup();
    decisions
}

/// A decision in these fields: those about policies, and the outcome.
fn decision(fields: &BTreeMap<String, Value>) -> Option<String> {
    let find = |part: &str| fields.iter().find(|(name, _)| name.ends_with(part)).map(|(_, it)| it);
    let policies = find("policy_ids").or_else(|| find("policy.ids"));
    let revision = find("policy_revision").or_else(|| find("policy.revision"));
    let outcome = find("outcome").map(lines::text);
    if policies.is_none() && revision.is_none() {
        return None;
    }
    let mut text = outcome.unwrap_or_else(|| "decided".to_owned());
    if let Some(item) = find("item").map(lines::text) {
        text = format!("{text} {item}");
    }
    let policies = policies.map(lines::text).filter(|policies| !policies.is_empty());
    text += &policies.map_or_else(|| " by no policy".to_owned(), |it| format!(" by {it}"));
    if let Some(revision) = revision.map(lines::text) {
        text += &format!(" (policies of revision {revision})");
    }
    Some(text)
}

#[cfg(test)]
mod tests;
