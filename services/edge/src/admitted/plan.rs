//! What remains to be done for an admitted request.

use std::sync::Arc;

use drawbridge_proto::auth::v1 as auth;
use secrecy::SecretString;

use super::Cursor;
use crate::{
    catalog::{CompletionItem, ListItem, PromptItem, ResourceItem, ToolItem, WatchItem},
    grpc::upstream::EncodedMessage,
};

/// What remains to be done for an allowed request.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Anything that needs only an authenticated caller.
    Connect,
    /// Reply that the service of this item is not available yet.
    Unread,
    /// Describe the server, with the instructions of its services for this caller.
    Describe {
        instructions: String,
        /// Whether a tool of this caller has a UI page (MCP Apps).
        pages: bool,
    },
    /// List these tools.
    ListTools(Arc<ToolPage>),
    /// List these resources, followed by those that services list.
    ListResources(Arc<Vec<Arc<ResourceItem>>>, Arc<ServiceLists>),
    /// Call this tool.
    CallTool(Arc<ToolItem>, Arc<Call>),
    /// Reply to the model with what is invalid in its arguments for this tool.
    InvalidArguments(Arc<ToolItem>, String),
    /// Reply that the arguments for this tool could not be transformed.
    TransformFailed(Arc<ToolItem>),
    /// Read this resource.
    ReadResource(Arc<ResourceItem>, Arc<Call>),
    /// List these prompts.
    ListPrompts(Arc<Vec<Arc<PromptItem>>>),
    /// Get this prompt.
    GetPrompt(Arc<PromptItem>, Arc<Call>),
    /// Complete an argument.
    Complete(Arc<CompletionItem>, Arc<Call>),
    /// Notify the client of changes of these resources.
    Watch(Arc<Vec<ResourceWatch>>),
}

/// A page of the tools that the caller may see.
#[derive(Debug)]
pub(crate) struct ToolPage {
    pub(crate) tools: Vec<ListedTool>,
    /// The cursor of the next page, if there is one.
    pub(crate) next: Option<String>,
}

/// A tool in a list.
#[derive(Debug)]
pub(crate) struct ListedTool {
    pub(crate) tool: Arc<ToolItem>,
    /// Whether the endpoint shows its UI page (MCP Apps).
    pub(crate) with_ui: bool,
}

/// The calls that list the resources of services for one page.
#[derive(Debug, Default)]
pub(crate) struct ServiceLists {
    /// They run one after the other until the page is full.
    pub(crate) lists: Vec<(Arc<ListItem>, Arc<Call>)>,
    /// Where the next page begins.
    pub(crate) next: Option<Cursor>,
}

impl Plan {
    /// The tool that is called.
    pub(crate) fn tool(&self) -> Option<&ToolItem> {
        match self {
            Self::CallTool(tool, _)
            | Self::InvalidArguments(tool, _)
            | Self::TransformFailed(tool) => Some(tool),
            _ => None,
        }
    }

    /// The authorized operation, if it reaches a tool service.
    pub(crate) fn operation(&self) -> Option<&Arc<auth::Operation>> {
        match self {
            Self::CallTool(_, call)
            | Self::ReadResource(_, call)
            | Self::GetPrompt(_, call)
            | Self::Complete(_, call) => Some(&call.operation),
            _ => None,
        }
    }
}

/// An allowed call: the message as it was authorized, and its transaction token.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) message: EncodedMessage,
    /// Absent if the decision read the arguments and the client's input may still be added to the
    /// message: the token names the digest of the sent message, so each round of such a call needs
    /// its own token.
    pub(crate) token: Option<Arc<SecretString>>,
    /// The epoch of the decision.
    pub(crate) epoch: u64,
    /// The authorized operation, to reauthorize it while the call continues.
    pub(crate) operation: Arc<auth::Operation>,
}

/// A resource whose changes the caller may watch.
#[derive(Clone, Debug)]
pub(crate) struct ResourceWatch {
    pub(crate) uri: String,
    pub(crate) item: Arc<WatchItem>,
    pub(crate) call: Arc<Call>,
}
