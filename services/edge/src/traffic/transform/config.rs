//! `[[tool]]` and `[[server]]` in the config file.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use drawbridge_sdk::{ConfigText, ConfigTextError};
use globset::{Glob, GlobSet, GlobSetBuilder};
use rmcp::model::JsonObject;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use super::{Program, Transformation, workers::Workers};
use crate::{
    catalog::{Namespace, Server, ToolView, View, compile, given_schema, is_tool_name},
    config::Services,
};

/// `[[tool]]`: what is otherwise about a tool than its service says.
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
    /// Always set, and not shown.
    #[serde(default)]
    fixed: toml::Table,
    /// Set where the client says nothing.
    #[serde(default)]
    defaults: toml::Table,
    /// Not shown, for a program to set.
    #[serde(default)]
    hidden: BTreeSet<String>,
}

/// `[[server]]`: chosen items of several services, at an endpoint of their own.
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

/// Reads what this text says of tools and virtual servers, beside these services.
pub(crate) fn read(
    text: &ConfigText,
    tools: &[ToolEntry],
    servers: &[ServerEntry],
    services: &Services,
) -> Result<View, ConfigTextError> {
    let mut view = View::default();
    let workers = Arc::<Workers>::default();
    let mut renamed = BTreeSet::new();
    for entry in tools {
        let name = entry.name.get_ref();
        let wrong = |problem: String| Err(text.wrong(entry.name.span().start, problem));
        if !is_tool_name(name) {
            return wrong(format!("{name:?} cannot be a tool's name"));
        }
        if let Some(rename) = &entry.rename {
            let (to, place) = (rename.get_ref(), rename.span().start);
            if !is_tool_name(to) {
                let problem = format!(
                    "{to:?} is not a name that every client takes: ^[a-zA-Z0-9_-]{{1,64}}$"
                );
                return Err(text.wrong(place, problem));
            }
            if !renamed.insert(to) {
                return Err(text.wrong(place, format!("two tools are renamed to {to:?}")));
            }
        }
        if view.tools.insert(name.clone(), tool(text, entry, &workers)?).is_some() {
            return wrong(format!("the tool {name:?} is given twice"));
        }
    }
    for entry in servers {
        let name = entry.name.get_ref();
        let wrong = |problem: String| Err(text.wrong(entry.name.span().start, problem));
        if services.contains_key(name) {
            return wrong(format!("the server {name} has the name of a service"));
        }
        if [&entry.tools, &entry.resources, &entry.prompts].iter().all(|chosen| chosen.is_empty()) {
            return wrong(format!("the server {name} offers nothing"));
        }
        if view.servers.insert(name.clone(), server(text, entry)?).is_some() {
            return wrong(format!("the server {name} is given twice"));
        }
    }
    Ok(view)
}

fn tool(
    text: &ConfigText,
    entry: &ToolEntry,
    workers: &Arc<Workers>,
) -> Result<ToolView, ConfigTextError> {
    let Arguments { fixed, defaults, hidden } = &entry.arguments;
    let place = entry.name.span().start;
    if let Some(twice) =
        fixed.keys().find(|name| defaults.contains_key(*name) || hidden.contains(*name))
    {
        let problem =
            format!("the argument {twice:?} is fixed: it has no default and need not be hidden");
        return Err(text.wrong(place, problem));
    }
    let input_schema = schema(text, entry.input_schema.as_ref(), "input_schema")?;
    if let (Some(schema), Some(given)) = (&input_schema, &entry.input_schema) {
        let unshown = |name: &&String| {
            schema.get("properties").and_then(|all| all.get(name.as_str())).is_some()
        };
        if let Some(name) = fixed.keys().chain(hidden).find(unshown) {
            let problem =
                format!("the input_schema shows the argument {name:?}, which no client can say");
            return Err(text.wrong(given.span().start, problem));
        }
    }
    let output_schema = schema(text, entry.output_schema.as_ref(), "output_schema")?;
    if let (Some(given), None) = (&entry.output_schema, &entry.response) {
        return Err(
            text.wrong(given.span().start, "an output_schema belongs to a response program")
        );
    }
    let output = output_schema.as_ref().map(compile).transpose();
    let output =
        output.map_err(|error| text.wrong(place, format!("the output_schema is none: {error}")))?;
    let transformation = Transformation {
        defaults: json(defaults),
        fixed: json(fixed),
        request: program(text, entry.request.as_ref(), "request")?,
        response: program(text, entry.response.as_ref(), "response")?,
        output: output.map(Arc::new),
        workers: Arc::clone(workers),
    };
    Ok(ToolView {
        name: entry.rename.as_ref().map(|name| name.get_ref().clone()),
        title: entry.title.clone(),
        description: entry.description.clone(),
        hidden: entry.hidden,
        hidden_arguments: hidden.clone(),
        input_schema,
        output_schema,
        transformation: Arc::new(transformation),
    })
}

fn program(
    text: &ConfigText,
    given: Option<&Spanned<String>>,
    which: &str,
) -> Result<Option<Arc<Program>>, ConfigTextError> {
    let Some(given) = given else { return Ok(None) };
    let compiled = Program::compile(given.get_ref()).map_err(|mistake| {
        let problem = format!("the {which} program cannot be compiled: {mistake}");
        text.pointed(given.span(), given.get_ref(), mistake.at, problem)
    })?;
    Ok(Some(Arc::new(compiled)))
}

fn schema(
    text: &ConfigText,
    given: Option<&Spanned<String>>,
    which: &str,
) -> Result<Option<JsonObject>, ConfigTextError> {
    let Some(given) = given else { return Ok(None) };
    let Range { start, .. } = given.span();
    let wrong =
        |error: &dyn std::fmt::Display| text.wrong(start, format!("the {which} is none: {error}"));
    let schema = given_schema(given.get_ref()).map_err(|error| wrong(&error))?;
    let schema = schema.ok_or_else(|| wrong(&"it is empty"))?;
    compile(&schema).map_err(|error| wrong(&error))?;
    Ok(Some(schema))
}

fn server(text: &ConfigText, entry: &ServerEntry) -> Result<Server, ConfigTextError> {
    let chosen = |patterns: &[Spanned<String>]| -> Result<(GlobSet, Vec<String>), ConfigTextError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let glob = Glob::new(pattern.get_ref());
            set.add(glob.map_err(|error| text.wrong(pattern.span().start, error.to_string()))?);
        }
        let set =
            set.build().map_err(|error| text.wrong(entry.name.span().start, error.to_string()))?;
        Ok((set, patterns.iter().map(|pattern| pattern.get_ref().clone()).collect()))
    };
    Ok(Server {
        tools: chosen(&entry.tools)?.into(),
        resources: chosen(&entry.resources)?.into(),
        prompts: chosen(&entry.prompts)?.into(),
    })
}

/// TOML as JSON. A date or time is its text.
fn json(table: &toml::Table) -> JsonObject {
    fn value(given: &toml::Value) -> Value {
        match given {
            toml::Value::String(text) => Value::from(text.as_str()),
            toml::Value::Integer(number) => Value::from(*number),
            toml::Value::Float(number) => Value::from(*number),
            toml::Value::Boolean(value) => Value::from(*value),
            toml::Value::Datetime(time) => Value::from(time.to_string()),
            toml::Value::Array(values) => values.iter().map(value).collect(),
            toml::Value::Table(table) => Value::Object(json(table)),
        }
    }
    table.iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{from_flags, parse};

    fn told(text: &str) -> String {
        let flags = from_flags(&["code=http://127.0.0.1:1".parse().unwrap()]);
        let said = parse(&ConfigText::new("edge.toml", text), &flags);
        said.map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let tool = "[[tool]]\nname = \"code_search\"\n";
        let server = "[[server]]\nname = \"desk\"\n";
        let mistakes = [
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
        let told: Vec<_> = mistakes.iter().map(|text| told(text)).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        edge.toml:5: the request program cannot be compiled: there is no filter lenght/0 here
          |
        5 | | .path |= lenght
          |            ^^^^^^
        edge.toml:3: the response program cannot be compiled: expected closing parenthesis
          |
        3 | response = "del(.a"
          |                ^
        edge.toml:3: an output_schema belongs to a response program
        edge.toml:3: the input_schema is none: its type is not "object"
        edge.toml:2: the argument "a" is fixed: it has no default and need not be hidden
        edge.toml:4: the input_schema shows the argument "a", which no client can say
        edge.toml:3: "a b" is not a name that every client takes: ^[a-zA-Z0-9_-]{1,64}$
        edge.toml:6: two tools are renamed to "a"
        edge.toml:4: the tool "code_search" is given twice
        edge.toml:2: the server desk offers nothing
        edge.toml:2: the server code has the name of a service
        edge.toml:3: error parsing glob '[': unclosed character class; missing ']'
        edge.toml:5: the server desk is given twice
        "#);
    }
}
