//! Spans as a tree.

use std::collections::HashMap;

use drawbridge_mesh::calls::RecordedSpan;

use super::lines;

/// The width of names with their indentation, in columns.
const NAMES: usize = 52;
/// Attributes that say how a span went; the others are shown on request.
const SHOWN: [&str; 4] =
    ["error.type", "drawbridge.cache", "http.response.status_code", "db.operation.name"];
/// Attributes that every span has, or that are shown elsewhere.
const HIDDEN: [&str; 3] = ["request_id", "trace_id", "caller_request_id"];

/// The spans of a call.
pub(super) struct Tree<'a> {
    /// Those without a parent among them, by their beginning.
    roots: Vec<&'a RecordedSpan>,
    /// By the id of their parent.
    children: HashMap<&'a str, Vec<&'a RecordedSpan>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(spans: &'a [RecordedSpan]) -> Self {
        let is_known = |id: &str| spans.iter().any(|span| span.id == id);
        let mut tree = Self { roots: Vec::new(), children: HashMap::new() };
        for span in spans {
            if is_known(&span.parent) {
                tree.children.entry(&span.parent).or_default().push(span);
            } else {
                tree.roots.push(span);
            }
        }
        tree
    }

    /// How the first span went. `None`: there is no span.
    pub(super) fn outcome(&self) -> Option<String> {
        let root = self.roots.first()?;
        let error = self.find(root, &|span| span.attributes.get("error.type"));
        let took = duration(root.duration_ns);
        Some(match error {
            Some(error) => format!("{} after {took}", lines::text(error)),
            None if root.is_error => format!("failed after {took}"),
            None => format!("ok after {took}"),
        })
    }

    /// The first value that a span, or one below it, has.
    fn find<T>(
        &self,
        span: &'a RecordedSpan,
        get: &impl Fn(&'a RecordedSpan) -> Option<T>,
    ) -> Option<T> {
        get(span).or_else(|| {
            let children = self.children.get(span.id.as_str());
            children.into_iter().flatten().find_map(|child| self.find(child, get))
        })
    }

    /// A line per span; with `attributes`, a line for each of them below.
    pub(super) fn draw(&self, attributes: bool) -> String {
        let mut drawn = String::new();
        for root in &self.roots {
            self.draw_span(root, "", "", attributes, &mut drawn);
        }
        drawn
    }

    fn draw_span(
        &self,
        span: &RecordedSpan,
        first: &str,
        rest: &str,
        attributes: bool,
        drawn: &mut String,
    ) {
        let children = self.children.get(span.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let name = format!("{first}{}", printable(&span.name));
        let mut line = format!(
            "{name:NAMES$} {:>9}  {}{}",
            duration(span.duration_ns),
            span.service,
            if span.kind == "client" { " →" } else { "" },
        );
        if span.is_error {
            line += "  ERROR";
        }
        for shown in SHOWN {
            if let Some(value) = span.attributes.get(shown) {
                line += &format!("  {}", printable(&lines::text(value)));
            }
        }
        *drawn += &format!("{}\n", line.trim_end());
        if attributes {
            let below = if children.is_empty() { "   " } else { "│  " };
            for (name, value) in &span.attributes {
                if !HIDDEN.contains(&name.as_str()) {
                    let value = printable(&lines::text(value));
                    *drawn += &format!("{rest}{below}  {name} = {value}\n");
                }
            }
        }
        for (at, child) in children.iter().enumerate() {
            let is_last = at + 1 == children.len();
            let (first, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let (first, below) = (format!("{rest}{first}"), format!("{rest}{below}"));
            self.draw_span(child, &first, &below, attributes, drawn);
        }
    }
}

/// A text that does not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

fn duration(ns: u64) -> String {
    let us = ns / 1_000;
    match us {
        0..10_000 => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        10_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}
