//! Log lines for clients.

use drawbridge_proto::mcp::v1::{self as pb, log_message::Level};
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
use serde_json::Value;

use super::json;

/// MCP's levels, from the least severe.
const LEVELS: [LoggingLevel; 8] = [
    LoggingLevel::Debug,
    LoggingLevel::Info,
    LoggingLevel::Notice,
    LoggingLevel::Warning,
    LoggingLevel::Error,
    LoggingLevel::Critical,
    LoggingLevel::Alert,
    LoggingLevel::Emergency,
];

/// The level of this number, by which a session has it.
pub(super) fn level(number: u8) -> LoggingLevel {
    LEVELS.get(usize::from(number)).copied().unwrap_or(LoggingLevel::Info)
}

/// A service's line as MCP's notification.
pub(super) fn message(line: pb::LogMessage) -> LoggingMessageNotificationParam {
    let data = line.data.as_ref().map_or(Value::Null, json::from_field);
    let message = LoggingMessageNotificationParam::new(of_line(line.level()), data);
    if line.logger.is_empty() { message } else { message.with_logger(line.logger) }
}

/// The level of a service's line.
pub(super) fn of_line(level: Level) -> LoggingLevel {
    match level {
        Level::Debug => LoggingLevel::Debug,
        Level::Unspecified | Level::Info => LoggingLevel::Info,
        Level::Notice => LoggingLevel::Notice,
        Level::Warning => LoggingLevel::Warning,
        Level::Error => LoggingLevel::Error,
        Level::Critical => LoggingLevel::Critical,
        Level::Alert => LoggingLevel::Alert,
        Level::Emergency => LoggingLevel::Emergency,
    }
}
