//! The `[[tool]]` and `[[server]]` entries of the config file.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use drawbridge_runtime::{ConfigText, ConfigTextError};
use globset::{Glob, GlobSet, GlobSetBuilder};
use rmcp::model::JsonObject;
use serde::Deserialize;
use toml::Spanned;

use super::{Overlay, ToolOverlay, VirtualServer};
use crate::{
    catalog::{
        is_tool_name,
        schema_text::{compile, parse_schema},
    },
    namespace::Namespace,
    traffic::transform::{Transformation, TransformationSettings, Workers},
};

/// `[[tool]]`: how a tool differs from what its service offers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolEntry {
    name: Spanned<String>,
    rename: Option<Spanned<String>>,
    title: Option<String>,
    description: Option<String>,
    #[serde(default)]
    hidden: bool,
    #[serde(default)]
    arguments: Arguments,
    input_schema: Option<Spanned<String>>,
    request: Option<Spanned<String>>,
    response: Option<Spanned<String>>,
    output_schema: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Always set, and hidden from clients.
    #[serde(default)]
    fixed: toml::Table,
    /// Set unless the client does.
    #[serde(default)]
    defaults: toml::Table,
    /// Hidden from clients, for a program to set.
    #[serde(default)]
    hidden: BTreeSet<String>,
}

/// `[[server]]`: a virtual server, with items of several services at its own endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerEntry {
    name: Spanned<Namespace>,
    #[serde(default)]
    tools: Vec<Spanned<String>>,
    #[serde(default)]
    resources: Vec<Spanned<String>>,
    #[serde(default)]
    prompts: Vec<Spanned<String>>,
}

impl Overlay {
    /// Reads the tools and virtual servers of the config file. `services` are the namespaces of
    /// the configured services.
    pub(crate) fn new(
        text: &ConfigText,
        tools: &[ToolEntry],
        servers: &[ServerEntry],
        services: &BTreeSet<Namespace>,
    ) -> Result<Self, ConfigTextError> {
        let mut overlay = Self::default();
        let workers = Arc::<Workers>::default();
        let mut renamed = BTreeSet::new();
        for entry in tools {
            let name = entry.name.get_ref();
            let invalid = |problem: String| Err(text.error_at(entry.name.span().start, problem));
            if !is_tool_name(name) {
                return invalid(invalid_tool_name(name));
            }
            if let Some(rename) = &entry.rename {
                let (to, place) = (rename.get_ref(), rename.span().start);
                if !is_tool_name(to) {
                    return Err(text.error_at(place, invalid_tool_name(to)));
                }
                if !renamed.insert(to) {
                    return Err(text.error_at(place, format!("two tools are renamed to {to:?}")));
                }
            }
            if overlay.tools.insert(name.clone(), tool(text, entry, &workers)?).is_some() {
                return invalid(format!("the tool {name:?} is configured twice"));
            }
        }
        for entry in servers {
            let name = entry.name.get_ref();
            let invalid = |problem: String| Err(text.error_at(entry.name.span().start, problem));
            if services.contains(name) {
                return invalid(format!("the server {name} has the name of a service"));
            }
            if [&entry.tools, &entry.resources, &entry.prompts]
                .iter()
                .all(|patterns| patterns.is_empty())
            {
                return invalid(format!("the server {name} has no tools, resources or prompts"));
            }
            if overlay.servers.insert(name.clone(), server(text, entry)?).is_some() {
                return invalid(format!("the server {name} is configured twice"));
            }
        }
        Ok(overlay)
    }
}

fn tool(
    text: &ConfigText,
    entry: &ToolEntry,
    workers: &Arc<Workers>,
) -> Result<ToolOverlay, ConfigTextError> {
    let Arguments { fixed, defaults, hidden } = &entry.arguments;
    let place = entry.name.span().start;
    if let Some(twice) =
        fixed.keys().find(|name| defaults.contains_key(*name) || hidden.contains(*name))
    {
        let problem =
            format!("the argument {twice:?} is fixed; remove it from `defaults` and `hidden`");
        return Err(text.error_at(place, problem));
    }
    let input_schema = schema(text, entry.input_schema.as_ref(), "input_schema")?;
    if let (Some(schema), Some(source)) = (&input_schema, &entry.input_schema) {
        let is_shown = |name: &&String| {
            schema.get("properties").and_then(|all| all.get(name.as_str())).is_some()
        };
        if let Some(name) = fixed.keys().chain(hidden).find(is_shown) {
            let problem =
                format!("the `input_schema` shows the argument {name:?}, which clients cannot set");
            return Err(text.error_at(source.span().start, problem));
        }
    }
    let output_schema = schema(text, entry.output_schema.as_ref(), "output_schema")?;
    if let (Some(source), None) = (&entry.output_schema, &entry.response) {
        return Err(
            text.error_at(source.span().start, "`output_schema` requires a `response` program")
        );
    }
    let output = output_schema.as_ref().map(compile).transpose();
    let output =
        output.map_err(|error| text.error_at(place, invalid_schema("output_schema", &error)))?;
    let settings = TransformationSettings {
        defaults,
        fixed,
        request: entry.request.as_ref(),
        response: entry.response.as_ref(),
        output: output.map(Arc::new),
    };
    let transformation = Transformation::new(text, settings, workers)?;
    Ok(ToolOverlay {
        name: entry.rename.as_ref().map(|name| name.get_ref().clone()),
        title: entry.title.clone(),
        description: entry.description.clone(),
        is_hidden: entry.hidden,
        hidden_arguments: hidden.clone(),
        input_schema,
        output_schema,
        transformation: Arc::new(transformation),
    })
}

fn schema(
    text: &ConfigText,
    source: Option<&Spanned<String>>,
    which: &str,
) -> Result<Option<JsonObject>, ConfigTextError> {
    let Some(source) = source else { return Ok(None) };
    let Range { start, .. } = source.span();
    let invalid =
        |error: &dyn std::fmt::Display| text.error_at(start, invalid_schema(which, error));
    let schema = parse_schema(source.get_ref()).map_err(|error| invalid(&error))?;
    let schema = schema.ok_or_else(|| invalid(&"it is empty"))?;
    compile(&schema).map_err(|error| invalid(&error))?;
    Ok(Some(schema))
}

fn server(text: &ConfigText, entry: &ServerEntry) -> Result<VirtualServer, ConfigTextError> {
    let compiled =
        |patterns: &[Spanned<String>]| -> Result<(GlobSet, Vec<String>), ConfigTextError> {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns {
                let glob = Glob::new(pattern.get_ref());
                set.add(
                    glob.map_err(|error| text.error_at(pattern.span().start, error.to_string()))?,
                );
            }
            let set = set
                .build()
                .map_err(|error| text.error_at(entry.name.span().start, error.to_string()))?;
            Ok((set, patterns.iter().map(|pattern| pattern.get_ref().clone()).collect()))
        };
    Ok(VirtualServer {
        tools: compiled(&entry.tools)?.into(),
        resources: compiled(&entry.resources)?.into(),
        prompts: compiled(&entry.prompts)?.into(),
    })
}

fn invalid_tool_name(name: &str) -> String {
    format!("invalid tool name {name:?} (expected a match of ^[a-zA-Z0-9_-]{{1,64}}$)")
}

fn invalid_schema(option: &str, error: &dyn std::fmt::Display) -> String {
    format!("`{option}` is not a valid JSON Schema object: {error}")
}

#[cfg(test)]
mod tests {
    use crate::catalog::testdata;

    fn error_of(text: &str) -> String {
        testdata::overlay(text, &["code"]).map(drop).unwrap_err().to_string()
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
        edge.toml:5: the request program does not compile: undefined filter lenght/0
          |
        5 | | .path |= lenght
          |            ^^^^^^
        edge.toml:3: the response program does not compile: expected closing parenthesis
          |
        3 | response = "del(.a"
          |                ^
        edge.toml:3: `output_schema` requires a `response` program
        edge.toml:3: `input_schema` is not a valid JSON Schema object: its type is not "object"
        edge.toml:2: the argument "a" is fixed; remove it from `defaults` and `hidden`
        edge.toml:4: the `input_schema` shows the argument "a", which clients cannot set
        edge.toml:3: invalid tool name "a b" (expected a match of ^[a-zA-Z0-9_-]{1,64}$)
        edge.toml:6: two tools are renamed to "a"
        edge.toml:4: the tool "code_search" is configured twice
        edge.toml:2: the server desk has no tools, resources or prompts
        edge.toml:2: the server code has the name of a service
        edge.toml:3: error parsing glob '[': unclosed character class; missing ']'
        edge.toml:5: the server desk is configured twice
        "#);
    }
}
