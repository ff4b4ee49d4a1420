//! The `[[tool]]` and `[[server]]` entries of the config file.

use std::{collections::BTreeSet, sync::Arc};

use drawbridge_config::{
    Mistakes, Namespace, Spanned,
    edge::{ArgumentsTable, ServerEntry, ToolEntry},
};
use globset::{Glob, GlobSetBuilder};
use rmcp::model::JsonObject;

use super::{NamePatterns, Overlay, ToolOverlay, VirtualServer};
use crate::{
    catalog::schema_text::{compile, parse_schema},
    traffic::transform::{Transformation, TransformationSettings, Workers},
};

impl Overlay {
    /// The tools and virtual servers of the config file. `services` are the namespaces of the
    /// configured services.
    pub(crate) fn new(
        tools: &[ToolEntry],
        servers: &[ServerEntry],
        services: &BTreeSet<Namespace>,
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        let mut overlay = Self::default();
        let workers = Arc::<Workers>::default();
        let mut renamed = BTreeSet::new();
        for entry in tools {
            let name = &*entry.name;
            if let Some(rename) =
                entry.rename.as_ref().filter(|name| !renamed.insert(name.as_str()))
            {
                let problem = format!("two tools are renamed to {:?}", rename.as_str());
                mistakes.push(rename.span(), problem);
            }
            let tool = tool(entry, &workers, mistakes);
            if overlay.tools.insert(name.to_string(), tool).is_some() {
                let problem = format!("the tool {:?} is configured twice", name.as_str());
                mistakes.push(entry.name.span(), problem);
            }
        }
        for entry in servers {
            let name = &*entry.name;
            if services.contains(name) {
                let problem = format!("the server {name} has the name of a service");
                mistakes.push(entry.name.span(), problem);
            }
            if [&entry.tools, &entry.resources, &entry.prompts]
                .iter()
                .all(|patterns| patterns.is_empty())
            {
                let problem = format!("the server {name} has no tools, resources or prompts");
                mistakes.push_combined(entry.name.span(), problem);
            }
            let server = VirtualServer {
                tools: patterns(&entry.tools, mistakes),
                resources: patterns(&entry.resources, mistakes),
                prompts: patterns(&entry.prompts, mistakes),
            };
            if overlay.servers.insert(name.clone(), server).is_some() {
                let problem = format!("the server {name} is configured twice");
                mistakes.push(entry.name.span(), problem);
            }
        }
        overlay
    }
}

fn tool(entry: &ToolEntry, workers: &Arc<Workers>, mistakes: &mut Mistakes<'_>) -> ToolOverlay {
    let ArgumentsTable { fixed, defaults, hidden } = &entry.arguments;
    for name in fixed.keys().filter(|name| defaults.contains_key(*name) || hidden.contains(*name)) {
        let problem =
            format!("the argument {name:?} is fixed; remove it from `defaults` and `hidden`");
        mistakes.push(entry.name.span(), problem);
    }
    let input_schema = schema(entry.input_schema.as_ref(), "input_schema", mistakes);
    if let (Some(schema), Some(source)) = (&input_schema, &entry.input_schema) {
        let properties = schema.get("properties").and_then(|all| all.as_object());
        let is_shown = |name: &&String| properties.is_some_and(|all| all.contains_key(*name));
        for name in fixed.keys().chain(hidden).filter(is_shown) {
            let problem =
                format!("the `input_schema` shows the argument {name:?}, which clients cannot set");
            mistakes.push_combined(source.span(), problem);
        }
    }
    let output_schema = schema(entry.output_schema.as_ref(), "output_schema", mistakes);
    if let (Some(source), None) = (&entry.output_schema, &entry.response) {
        mistakes.push_combined(source.span(), "`output_schema` requires a `response` program");
    }
    let settings = TransformationSettings {
        defaults,
        fixed,
        request: entry.request.as_ref(),
        response: entry.response.as_ref(),
        output: output_schema.as_ref().and_then(|schema| compile(schema).ok()).map(Arc::new),
    };
    ToolOverlay {
        name: entry.rename.as_ref().map(|name| name.to_string()),
        title: entry.title.clone(),
        description: entry.description.clone(),
        is_hidden: entry.hidden,
        hidden_arguments: hidden.clone(),
        input_schema,
        output_schema,
        transformation: Arc::new(Transformation::new(settings, workers, mistakes)),
    }
}

/// A schema that compiles.
fn schema(
    source: Option<&Spanned<String>>,
    option: &str,
    mistakes: &mut Mistakes<'_>,
) -> Option<JsonObject> {
    let source = source?;
    let mut invalid = |error: &dyn std::fmt::Display| {
        let problem = format!("`{option}` is not a valid JSON Schema object: {error}");
        mistakes.push(source.span(), problem);
        None
    };
    match parse_schema(source) {
        Ok(Some(schema)) => match compile(&schema) {
            Ok(_) => Some(schema),
            Err(error) => invalid(&error),
        },
        Ok(None) => invalid(&"it is empty"),
        Err(error) => invalid(&error),
    }
}

fn patterns(patterns: &[Spanned<String>], mistakes: &mut Mistakes<'_>) -> NamePatterns {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        match Glob::new(pattern) {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) => mistakes.push(pattern.span(), error.to_string()),
        }
    }
    let set = set.build().unwrap_or_else(|error| {
        let span = patterns.first().map(Spanned::span).unwrap_or_default();
        mistakes.push(span, error.to_string());
        globset::GlobSet::empty()
    });
    (set, patterns.iter().map(|pattern| pattern.to_string()).collect()).into()
}

#[cfg(test)]
mod tests {
    use crate::catalog::testdata;

    fn error_of(text: &str) -> String {
        testdata::overlay(text, &["code"]).map(drop).unwrap_err()
    }

    #[test]
    fn an_invalid_overlay_is_reported_with_its_line() {
        let tool = "[[tool]]\nname = \"code_search\"\n";
        let server = "[[server]]\nname = \"desk\"\n";
        let invalid = [
            format!("{tool}request = '''\n.limit = 1\n| .path |= lenght\n'''\n"),
            format!("{tool}response = \"del(.a\"\n"),
            format!("{tool}output_schema = '{{ \"type\": \"object\" }}'\n"),
            format!("{tool}input_schema = '[]'\n"),
            format!("{tool}arguments.fixed = {{ a = 1 }}\narguments.hidden = [\"a\"]\n"),
            format!(
                "{tool}arguments.hidden = [\"a\"]\n\
                 input_schema = '{{ \"type\": \"object\", \"properties\": {{ \"a\": {{}} }} }}'\n"
            ),
            format!("{tool}rename = \"a b\"\n"),
            format!("{tool}rename = \"a\"\n{}rename = \"a\"\n", tool.replace("search", "read")),
            format!("{tool}{tool}"),
            server.to_owned(),
            format!("{}tools = [\"*\"]\n", server.replace("desk", "code")),
            format!("{server}tools = [\"[\"]\n"),
            format!("{server}tools = [\"*\"]\n{server}tools = [\"*\"]\n"),
        ];
        let messages: Vec<_> = invalid.iter().map(|text| error_of(text)).collect();
        insta::assert_snapshot!(messages.join("\n"), @r#"
        edge.toml:5:12: the request program does not compile: undefined filter lenght/0
          |
        5 | | .path |= lenght
          |            ^^^^^^
        edge.toml:3:16: the response program does not compile: expected closing parenthesis
          |
        3 | response = "del(.a"
          |                ^
        edge.toml:3:17: `output_schema` requires a `response` program
          |
        3 | output_schema = '{ "type": "object" }'
          |                 ^^^^^^^^^^^^^^^^^^^^^^
        edge.toml:3:16: `input_schema` is not a valid JSON Schema object: its type is not "object"
          |
        3 | input_schema = '[]'
          |                ^^^^
        edge.toml:2:8: the argument "a" is fixed; remove it from `defaults` and `hidden`
          |
        2 | name = "code_search"
          |        ^^^^^^^^^^^^^
        edge.toml:4:16: the `input_schema` shows the argument "a", which clients cannot set
          |
        4 | input_schema = '{ "type": "object", "properties": { "a": {} } }'
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        edge.toml:3:10: invalid name: expected 1 to 64 of the characters A-Z a-z 0-9 _ -
          |
        3 | rename = "a b"
          |          ^^^^^
        edge.toml:6:10: two tools are renamed to "a"
          |
        6 | rename = "a"
          |          ^^^
        edge.toml:4:8: the tool "code_search" is configured twice
          |
        4 | name = "code_search"
          |        ^^^^^^^^^^^^^
        edge.toml:2:8: the server desk has no tools, resources or prompts
          |
        2 | name = "desk"
          |        ^^^^^^
        edge.toml:2:8: the server code has the name of a service
          |
        2 | name = "code"
          |        ^^^^^^
        edge.toml:3:10: error parsing glob '[': unclosed character class; missing ']'
          |
        3 | tools = ["["]
          |          ^^^
        edge.toml:5:8: the server desk is configured twice
          |
        5 | name = "desk"
          |        ^^^^^^
        "#);
    }
}
