use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Name, Namespace, Spanned};

/// How a tool differs from what its service offers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolEntry {
    /// The name that its service gives it.
    pub name: Spanned<Name>,
    /// The name that clients see.
    pub rename: Option<Spanned<Name>>,
    /// The title that clients see.
    pub title: Option<String>,
    /// The description that clients see.
    pub description: Option<String>,
    /// Whether it is neither listed nor called.
    #[serde(default)]
    pub hidden: bool,
    /// Its arguments.
    #[serde(default)]
    pub arguments: ArgumentsTable,
    /// The JSON Schema of the arguments that clients see, as JSON text.
    pub input_schema: Option<Spanned<String>>,
    /// A jq program that transforms the arguments.
    pub request: Option<Spanned<String>>,
    /// A jq program that transforms the structured result.
    pub response: Option<Spanned<String>>,
    /// The JSON Schema of the output of the `response` program, as JSON text.
    pub output_schema: Option<Spanned<String>>,
}

/// The arguments of a tool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ArgumentsTable {
    /// Always set. Clients neither see nor set them.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub fixed: toml::Table,
    /// Set where a client gives no value. The schema shows them.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub defaults: toml::Table,
    /// Clients neither see nor set them. A program may set them.
    pub hidden: BTreeSet<String>,
}

/// A virtual server: items of several services at an endpoint of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerEntry {
    /// The last segment of its endpoint, `/mcp/<name>`. It cannot be the namespace of a service.
    pub name: Spanned<Namespace>,
    /// Tools, by the names that their services give them. `*` matches any characters.
    #[serde(default)]
    pub tools: Vec<Spanned<String>>,
    /// Resources, likewise.
    #[serde(default)]
    pub resources: Vec<Spanned<String>>,
    /// Prompts, likewise.
    #[serde(default)]
    pub prompts: Vec<Spanned<String>>,
}
