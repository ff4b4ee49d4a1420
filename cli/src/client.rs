//! `drawbridge client add`: adds the MCP endpoint to an AI client's own config file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use drawbridge_mesh::state::MeshArgs;
use drawbridge_runtime::{bounded, private_files};
use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstObject, CstRootNode},
};
use serde_json::json;
use url::Url;

/// The largest config file of a client, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The subcommands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// Add the MCP endpoint of the running mesh to an AI client's config file.
    Add(AddArgs),
}

/// Which client, and where.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge client add claude-code
  drawbridge client add cursor --user
  drawbridge client add vscode --namespace tickets --name tickets
  drawbridge client add inspector --print

Other entries and comments of an existing file stay. The file holds no secret: the client signs \
in by itself.")]
pub struct AddArgs {
    /// The client.
    client: Client,

    /// The client's name for the server.
    #[arg(long, default_value = "drawbridge")]
    name: ServerName,

    /// Offer the tools of this namespace or virtual server alone. Absent: all tools.
    #[arg(long)]
    namespace: Option<String>,

    /// The URL of the MCP endpoint. Absent: that of the running mesh.
    #[arg(long, conflicts_with = "mesh")]
    url: Option<Url>,

    /// The project folder whose config file is written.
    #[arg(long, value_name = "DIR", default_value = ".", conflicts_with = "user")]
    folder: PathBuf,

    /// Write the config file of this user, for all projects.
    #[arg(long)]
    user: bool,

    /// Print the configuration and write nothing.
    #[arg(long)]
    print: bool,

    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    mesh: MeshArgs,
}

/// An AI client whose config file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Client {
    /// Claude Code: `.mcp.json`.
    ClaudeCode,
    /// Cursor: `.cursor/mcp.json`.
    Cursor,
    /// Visual Studio Code: `.vscode/mcp.json`.
    Vscode,
    /// MCP Inspector: `mcp-inspector.json`, for its option `--config`.
    Inspector,
}

/// The name of a server in a client's config: 1 to 64 letters, digits, `-` and `_`.
#[derive(Clone, Debug)]
struct ServerName(String);

impl FromStr for ServerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
        if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a server name has 1 to 64 letters, digits, `-` and `_`")
        }
    }
}

impl Client {
    /// The name of the object that holds the servers.
    const fn key(self) -> &'static str {
        match self {
            Self::Vscode => "servers",
            Self::ClaudeCode | Self::Cursor | Self::Inspector => "mcpServers",
        }
    }

    /// The properties of one server.
    fn entry(self, url: &Url) -> Vec<(&'static str, String)> {
        let transport = match self {
            Self::ClaudeCode | Self::Vscode => Some("http"),
            Self::Inspector => Some("streamable-http"),
            // Cursor finds the transport out by itself.
            Self::Cursor => None,
        };
        let transport = transport.map(|transport| ("type", transport.to_owned()));
        transport.into_iter().chain([("url", url.to_string())]).collect()
    }

    /// The config file of a project.
    fn project_file(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::ClaudeCode => ".mcp.json",
            Self::Cursor => ".cursor/mcp.json",
            Self::Vscode => ".vscode/mcp.json",
            Self::Inspector => "mcp-inspector.json",
        })
    }

    /// The config file of a user.
    fn user_file(self) -> anyhow::Result<PathBuf> {
        let home = || std::env::home_dir().context("the home folder is unknown: HOME is not set");
        Ok(match self {
            Self::Cursor => home()?.join(".cursor/mcp.json"),
            Self::Vscode if cfg!(target_os = "macos") => {
                home()?.join("Library/Application Support/Code/User/mcp.json")
            }
            Self::Vscode => home()?.join(".config/Code/User/mcp.json"),
            Self::ClaudeCode => bail!(
                "Claude Code keeps the servers of a user in a file of its own state: run `claude \
                 mcp add --scope user --transport http NAME URL`"
            ),
            Self::Inspector => bail!("MCP Inspector has no config file of a user; omit --user"),
        })
    }

    /// What to do next.
    fn next_step(self, file: &Path, name: &str) -> String {
        match self {
            Self::ClaudeCode => "start `claude` in this folder, approve the server, and sign in \
                                 with /mcp"
                .to_owned(),
            Self::Cursor => "open Cursor's settings, *MCP*, and sign in".to_owned(),
            Self::Vscode => format!("run the command *MCP: List Servers*, and start {name}"),
            Self::Inspector => format!(
                "npx @modelcontextprotocol/inspector --config {} --server {name}",
                file.display()
            ),
        }
    }
}

/// What happened to the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Added,
    Updated,
    Unchanged,
}

/// Runs a subcommand.
///
/// # Errors
/// When no mesh is running, or the client's file cannot be read, understood or written.
pub fn run(command: &ClientCommand) -> anyhow::Result<()> {
    let ClientCommand::Add(args) = command;
    let url = url(args)?;
    let ServerName(name) = &args.name;
    let file =
        if args.user { args.client.user_file()? } else { args.client.project_file(&args.folder) };
    if args.print {
        let (text, _) = with_entry("", args.client, name, &url)?;
        anstream::print!("{text}");
        return Ok(());
    }
    let change = add(&file, args.client, name, &url)
        .with_context(|| format!("cannot add {name} to {}", file.display()))?;
    let next_step = args.client.next_step(&file, name);
    let what = match change {
        Change::Added => "added",
        Change::Updated => "updated",
        Change::Unchanged => "unchanged",
    };
    if args.json {
        let report = json!({
            "name": name, "url": url, "file": file, "outcome": what, "nextStep": next_step,
        });
        anstream::println!("{report}");
    } else {
        anstream::println!("{}: {name} {what} ({url})\nNext: {next_step}", file.display());
    }
    Ok(())
}

/// The URL to add: the given one, or that of the running mesh, for one namespace if named.
fn url(args: &AddArgs) -> anyhow::Result<Url> {
    let mut url = match &args.url {
        Some(url) => url.clone(),
        None => {
            let mesh = args.mesh.find()?;
            let state = mesh.state().with_context(|| {
                format!("the URL of the MCP endpoint is unknown; {}, or give --url", mesh.advice())
            })?;
            state.mcp_url.clone()
        }
    };
    if let Some(namespace) = &args.namespace {
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} has no path", args.url.as_ref().map_or("", Url::as_str)))?
            .pop_if_empty()
            .push(namespace);
    }
    Ok(url)
}

/// Adds the entry to a file, which is created if it does not exist.
fn add(file: &Path, client: Client, name: &str, url: &Url) -> anyhow::Result<Change> {
    // An editor may keep its settings elsewhere, behind a link.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let text = match bounded::read_file_to_string(&file, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let (text, change) = with_entry(&text, client, name, url)?;
    if change != Change::Unchanged {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        write(&file, &text)?;
    }
    Ok(change)
}

/// Replaces the file in one step, with the permissions that it has.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let permissions = fs::metadata(file).ok().map(|metadata| metadata.permissions());
    private_files::replace_with(file, text.as_bytes(), |file| {
        permissions.clone().map_or(Ok(()), |permissions| file.set_permissions(permissions))
    })?;
    Ok(())
}

/// The text of a config file with the entry added. Its other entries and comments stay.
fn with_entry(
    text: &str,
    client: Client,
    name: &str,
    url: &Url,
) -> anyhow::Result<(String, Change)> {
    let source = if text.trim().is_empty() { "{}\n" } else { text };
    let root = CstRootNode::parse(source, &ParseOptions::default())
        .map_err(|error| anyhow!("it is not JSON with comments: {error}"))?;
    let not_an_object = |what: &str| anyhow!("{what} is not a JSON object");
    let object = root.object_value().ok_or_else(|| not_an_object("its content"))?;
    let servers = object
        .object_value_or_create(client.key())
        .ok_or_else(|| not_an_object(&format!("`{}`", client.key())))?;
    let properties = client.entry(url);
    let change = match servers.get(name) {
        None => {
            servers.ensure_multiline();
            servers.append(name, object_of(&properties));
            Change::Added
        }
        Some(entry) => {
            let entry = entry.object_value().ok_or_else(|| not_an_object(&format!("`{name}`")))?;
            if set(&entry, &properties) { Change::Updated } else { Change::Unchanged }
        }
    };
    let text = root.to_string();
    Ok((if text.ends_with('\n') { text } else { text + "\n" }, change))
}

fn object_of(properties: &[(&'static str, String)]) -> CstInputValue {
    let property = |(name, value): &(&'static str, String)| {
        ((*name).to_owned(), CstInputValue::String(value.clone()))
    };
    CstInputValue::Object(properties.iter().map(property).collect())
}

/// Sets properties of an entry. Its other properties, such as headers, stay. Returns whether any
/// changed.
fn set(entry: &CstObject, properties: &[(&'static str, String)]) -> bool {
    let mut changed = false;
    for (name, value) in properties {
        let new = CstInputValue::String(value.clone());
        match entry.get(name) {
            Some(property) => {
                let old = property.value().and_then(|value| value.as_string_lit());
                let old = old.and_then(|text| text.decoded_value().ok());
                if old.as_deref() != Some(value) {
                    property.set_value(new);
                    changed = true;
                }
            }
            None => {
                entry.append(name, new);
                changed = true;
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests;
