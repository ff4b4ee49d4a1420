//! MCP's tool annotations.

use drawbridge_proto::mcp::v1 as mcp;

/// MCP's tool annotations, with MCP's defaults for those that the tool does not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveHints {
    /// The tool changes nothing.
    pub read_only: bool,
    /// The tool may destroy or overwrite data. The default is false for a read-only tool: MCP
    /// defines the hint only for the others.
    pub destructive: bool,
    /// A repeated call with the same arguments has no further effect.
    pub idempotent: bool,
    /// The tool reaches an open world, such as the web.
    pub open_world: bool,
}

impl EffectiveHints {
    /// The hints of a tool with these options.
    #[must_use]
    pub fn from_options(tool: &mcp::ToolOptions) -> Self {
        let hints = tool.hints.unwrap_or_default();
        let read_only = hints.read_only.unwrap_or(false);
        Self {
            read_only,
            destructive: hints.destructive.unwrap_or(!read_only),
            idempotent: hints.idempotent.unwrap_or(false),
            open_world: hints.open_world.unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_tool_is_not_destructive_unless_its_hint_is_set() {
        let hints = |read_only, destructive| {
            let hints = mcp::ToolHints { read_only, destructive, ..mcp::ToolHints::default() };
            EffectiveHints::from_options(&mcp::ToolOptions {
                hints: Some(hints),
                ..mcp::ToolOptions::default()
            })
        };
        let defaults = EffectiveHints::from_options(&mcp::ToolOptions::default());
        assert_eq!(
            defaults,
            EffectiveHints {
                read_only: false,
                destructive: true,
                idempotent: false,
                open_world: true
            }
        );
        assert!(!hints(Some(true), None).destructive && hints(Some(true), None).open_world);
        assert!(
            hints(Some(false), None).destructive && !hints(Some(false), Some(false)).destructive
        );
        assert!(hints(Some(true), Some(true)).destructive);
    }
}
