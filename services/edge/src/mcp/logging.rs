//! Log messages for clients.

use drawbridge_proto::mcp::v1::{self as pb, log_message::Level};
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
use serde_json::Value;

use super::json;

/// MCP's levels, from the least severe to the most.
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

/// The level that a session stores as this number.
pub(super) fn level_from_number(number: u8) -> LoggingLevel {
    LEVELS.get(usize::from(number)).copied().unwrap_or(LoggingLevel::Info)
}

/// Converts a service's log message to MCP's notification.
pub(super) fn notification(log: pb::LogMessage) -> LoggingMessageNotificationParam {
    let data = log.data.as_ref().map_or(Value::Null, json::from_field);
    let message = LoggingMessageNotificationParam::new(level_from_service(log.level()), data);
    if log.logger.is_empty() { message } else { message.with_logger(log.logger) }
}

/// Converts the level of a service's log message.
pub(super) fn level_from_service(level: Level) -> LoggingLevel {
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
