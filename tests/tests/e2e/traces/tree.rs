//! Traces as trees.

use drawbridge_tests::Span;

/// The attributes that a line of a tree has. Others differ from call to call.
const SHOWN: [&str; 13] = [
    "http.response.status_code",
    "mcp.method.name",
    "mcp.protocol.version",
    "gen_ai.tool.name",
    "rpc.response.status_code",
    "drawbridge.decision.outcome",
    "drawbridge.decision.source",
    "drawbridge.policy.ids",
    "drawbridge.cache",
    "drawbridge.queue.name",
    "drawbridge.guard.changes",
    "db.system.name",
    "error.type",
];

/// The spans of a trace as an indented tree, each with its outcome: `!` is the status `ERROR`, and
/// `~>` a link.
pub(super) fn tree(spans: &[Span]) -> String {
    let is_root = |span: &&Span| !spans.iter().any(|parent| parent.span_id == span.parent_id);
    let mut text = String::new();
    for root in in_order(spans.iter().filter(is_root)) {
        write(root, spans, 0, &mut text);
    }
    text
}

fn in_order<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<&'a Span> {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_by_key(|span| span.started);
    spans
}

fn write(span: &Span, spans: &[Span], depth: usize, text: &mut String) {
    let name = span.name.strip_prefix("drawbridge.").unwrap_or(&span.name);
    text.push_str(&format!("{}{} {name} [{}]", "  ".repeat(depth), span.service, span.kind));
    for name in SHOWN {
        if let Some(value) = span.attribute(name) {
            let (_, short) = name.rsplit_once('.').unwrap_or(("", name));
            text.push_str(&format!(" {short}={value}"));
        }
    }
    text.push_str(if span.is_error { " !" } else { "" });
    for link in &span.links {
        let linked = spans.iter().find(|span| span.span_id == *link);
        let linked = linked.map_or("another trace", |span| span.name.as_str());
        text.push_str(&format!(" ~> {}", linked.strip_prefix("drawbridge.").unwrap_or(linked)));
    }
    text.push('\n');
    for child in in_order(spans.iter().filter(|child| child.parent_id == span.span_id)) {
        write(child, spans, depth + 1, text);
    }
}
