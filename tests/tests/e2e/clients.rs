//! Real MCP clients.
