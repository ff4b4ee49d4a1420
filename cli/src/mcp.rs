//! `drawbridge tools`, `resources` and `prompts`: what an AI client does, through the edge.

use std::process::ExitCode;

use drawbridge_runtime::{bounded, print_error};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use self::{answers::Answers, client::Client, failure::Failure};
use crate::sign_in::SignInArgs;

mod answers;
mod client;
mod events;
mod failure;
mod show;
mod watch;

/// The largest arguments on standard input, in bytes.
const ARGUMENTS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The subcommands of `tools`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ToolsCommand {
    /// List the tools that the caller sees.
    #[command(after_help = "\
Examples:
  drawbridge tools list --user alice")]
    List(ListArgs),
    /// Call a tool.
    #[command(after_help = "\
Examples:
  drawbridge tools call --user alice code_search '{\"query\":\"fn main\"}'
  echo '{\"query\":\"TODO\"}' | drawbridge tools call --json code_search -
  drawbridge tools call payments_pay '{\"id\":\"7\"}' --answer confirm=accept

Questions of a tool are asked at the terminal, or answered by --answer. The exit code is 0 with a \
result, 1 with an error of the tool, 2 with a wrong command line, and 3 when the call is refused.")]
    Call(CallToolArgs),
    /// Print changes of the list until interrupted.
    #[command(after_help = "\
Examples:
  drawbridge tools watch --user alice --json")]
    Watch(ListArgs),
}

/// The subcommands of `resources`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ResourcesCommand {
    /// List the resources and resource templates that the caller sees.
    #[command(after_help = "\
Examples:
  drawbridge resources list --user alice")]
    List(ListArgs),
    /// Print a resource.
    #[command(after_help = "\
Examples:
  drawbridge resources read --user alice code://README.md")]
    Read(ReadArgs),
}

/// The subcommands of `prompts`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PromptsCommand {
    /// List the prompts that the caller sees.
    #[command(after_help = "\
Examples:
  drawbridge prompts list --user alice")]
    List(ListArgs),
    /// Print the messages of a prompt.
    #[command(after_help = "\
Examples:
  drawbridge prompts get --user alice invoices_review '{\"invoice_id\":\"7\"}'")]
    Get(GetArgs),
}

/// How to list.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Print JSON, one line for each result.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    caller: EndpointArgs,
}

/// A tool and its arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct CallToolArgs {
    /// The tool's name.
    name: String,

    #[command(flatten)]
    request: RequestArgs,
}

/// A prompt and its arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    /// The prompt's name.
    name: String,

    #[command(flatten)]
    request: RequestArgs,
}

/// A resource.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadArgs {
    /// The resource's URI.
    uri: String,

    /// Print the whole result as one line of JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    caller: EndpointArgs,
}

/// A request that may ask the person.
#[derive(Clone, Debug, clap::Args)]
struct RequestArgs {
    /// The arguments as a JSON object; `-` reads them from standard input.
    #[arg(default_value = "{}")]
    arguments: String,

    /// The answer to a question: a property of a form and its value, or the name of a question and
    /// `accept`, `decline` or `cancel`. Repeat for several.
    #[arg(long = "answer", value_name = "NAME=VALUE", value_parser = answers::parse_pair)]
    answers: Vec<(String, String)>,

    /// Show progress and log messages also where standard error is no terminal.
    #[arg(long)]
    progress: bool,

    /// Print the whole result as one line of JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    caller: EndpointArgs,
}

/// The MCP endpoint and the caller.
#[derive(Clone, Debug, clap::Args)]
struct EndpointArgs {
    /// An access token for the endpoint. Absent: sign in.
    #[arg(
        long,
        env = "DRAWBRIDGE_CLIENT_TOKEN",
        hide_env_values = true,
        help_heading = "Sign-in",
        conflicts_with_all = ["user", "client_id"]
    )]
    token: Option<SecretString>,

    #[command(flatten)]
    sign_in: SignInArgs,
}

impl EndpointArgs {
    fn connect(self, answers: Answers, shows_progress: bool) -> Result<Client, Failure> {
        Client::new(self.sign_in.open()?, self.token, answers, shows_progress)
    }
}

/// Runs a subcommand of `tools`.
pub async fn tools(command: ToolsCommand) -> ExitCode {
    finish(match command {
        ToolsCommand::List(args) => list(args, &["tools"]).await,
        ToolsCommand::Watch(args) => match args.caller.connect(Answers::none(), false) {
            Ok(client) => watch::tools(client, args.json).await,
            Err(failure) => Err(failure),
        },
        ToolsCommand::Call(CallToolArgs { name, request }) => call(name, request).await,
    })
}

/// Runs a subcommand of `resources`.
pub async fn resources(command: ResourcesCommand) -> ExitCode {
    finish(match command {
        ResourcesCommand::List(args) => list(args, &["resources", "resourceTemplates"]).await,
        ResourcesCommand::Read(args) => read(args).await,
    })
}

/// Runs a subcommand of `prompts`.
pub async fn prompts(command: PromptsCommand) -> ExitCode {
    finish(match command {
        PromptsCommand::List(args) => list(args, &["prompts"]).await,
        PromptsCommand::Get(GetArgs { name, request }) => get_prompt(name, request).await,
    })
}

fn finish(ended: Result<(), Failure>) -> ExitCode {
    let Err(failure) = ended else { return ExitCode::SUCCESS };
    let (error, code) = failure.into_parts();
    print_error(error.as_ref());
    ExitCode::from(code)
}

/// Prints the items of these lists.
async fn list(args: ListArgs, kinds: &[&'static str]) -> Result<(), Failure> {
    let mut client = args.caller.connect(Answers::none(), false)?;
    let mut found = Vec::new();
    for kind in kinds {
        found.push((*kind, client.list(kind).await?));
    }
    if args.json {
        for item in found.iter().flat_map(|(_, items)| items) {
            anstream::println!("{item}");
        }
    } else {
        show::lists(&found);
    }
    Ok(())
}

async fn call(name: String, args: RequestArgs) -> Result<(), Failure> {
    let arguments = arguments(&args.arguments)?;
    let answers = Answers::new(args.answers);
    let mut client = args.caller.connect(answers, args.progress)?;
    // A tool's schema says which arguments are repeated in headers (SEP-2243).
    let tools = client.list("tools").await?;
    let tool = tools.iter().find(|tool| tool["name"] == *name);
    let Some(tool) = tool else {
        return Err(Failure::refused(format!("there is no tool {name} for this caller")));
    };
    let headers = client::argument_headers(&tool["inputSchema"], &arguments);
    let params = json!({ "name": name, "arguments": arguments });
    let result = client.request("tools/call", params, &headers).await?;
    let is_error = result["isError"] == true;
    match (args.json, is_error) {
        (true, _) => anstream::println!("{result}"),
        (false, true) => {}
        (false, false) => show::tool_result(&result),
    }
    if is_error { Err(Failure::tool(show::text(&result))) } else { Ok(()) }
}

async fn read(args: ReadArgs) -> Result<(), Failure> {
    let mut client = args.caller.connect(Answers::none(), false)?;
    let result = client.request("resources/read", json!({ "uri": args.uri }), &[]).await?;
    if args.json {
        anstream::println!("{result}");
        return Ok(());
    }
    Ok(show::contents(&result)?)
}

async fn get_prompt(name: String, args: RequestArgs) -> Result<(), Failure> {
    let arguments = arguments(&args.arguments)?;
    let answers = Answers::new(args.answers);
    let mut client = args.caller.connect(answers, args.progress)?;
    let params = json!({ "name": name, "arguments": arguments });
    let result = client.request("prompts/get", params, &[]).await?;
    if args.json {
        anstream::println!("{result}");
    } else {
        show::messages(&result);
    }
    Ok(())
}

fn arguments(given: &str) -> Result<Value, Failure> {
    let text = if given == "-" {
        bounded::read_to_string(std::io::stdin(), ARGUMENTS_BYTES_MAX)
            .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?
    } else {
        given.to_owned()
    };
    let arguments: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("the arguments are not a JSON object: {error}")))?;
    Ok(Value::Object(arguments))
}
