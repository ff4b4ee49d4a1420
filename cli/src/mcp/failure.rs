//! Why a command failed, and its exit code.

use anyhow::anyhow;
use serde_json::Value;

/// JSON-RPC codes of refusals: no accepted token, no permission, and an item that does not exist
/// for this caller.
const REFUSALS: [i64; 4] = [-32041, -32043, -32002, -32602];
/// MCP's code of a client that lacks a capability.
const MISSING_CAPABILITY: i64 = -32021;

/// Why a command failed, by its exit code.
#[derive(Debug)]
pub(super) enum Failure {
    /// The tool, the edge or the network failed: 1.
    Failed(anyhow::Error),
    /// The command line is wrong: 2.
    Usage(anyhow::Error),
    /// The caller may not: 3.
    Refused(anyhow::Error),
}

impl Failure {
    pub(super) fn tool(text: String) -> Self {
        Self::Failed(anyhow!(text))
    }

    pub(super) fn usage(text: String) -> Self {
        Self::Usage(anyhow!(text))
    }

    pub(super) fn refused(text: String) -> Self {
        Self::Refused(anyhow!(text))
    }

    /// The error and the exit code.
    pub(super) fn into_parts(self) -> (anyhow::Error, u8) {
        match self {
            Self::Failed(error) => (error, 1),
            Self::Usage(error) => (error, 2),
            Self::Refused(error) => (error, 3),
        }
    }

    /// The failure of a JSON-RPC error.
    pub(super) fn of(error: &Value) -> Self {
        let text = error["message"].as_str().unwrap_or("the server returned an error").to_owned();
        match error["code"].as_i64() {
            Some(code) if REFUSALS.contains(&code) => Self::refused(text),
            Some(MISSING_CAPABILITY) => Self::tool(format!(
                "{text}; run the command at a terminal, or answer with --answer"
            )),
            _ => Self::tool(text),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
