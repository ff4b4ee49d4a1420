//! Log lines for clients, and the level that each client wants.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use drawbridge_proto::mcp::v1::{self as pb, log_message::Level};
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
use serde_json::Value;

use super::json;

/// The level that one session wants: `logging/setLevel`.
#[derive(Clone, Debug)]
pub(super) struct WantedLevel(Arc<AtomicU8>);

impl Default for WantedLevel {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(LoggingLevel::Info as u8)))
    }
}

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

impl WantedLevel {
    pub(super) fn set(&self, level: LoggingLevel) {
        self.0.store(level as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> LoggingLevel {
        LEVELS.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or(LoggingLevel::Info)
    }
}

pub(super) fn is_at_least(level: Level, wanted: LoggingLevel) -> bool {
    mcp_level(level) as u8 >= wanted as u8
}

/// A service's line as MCP's notification.
pub(super) fn message(line: pb::LogMessage) -> LoggingMessageNotificationParam {
    let data = line.data.as_ref().map_or(Value::Null, json::from_field);
    let message = LoggingMessageNotificationParam::new(mcp_level(line.level()), data);
    if line.logger.is_empty() { message } else { message.with_logger(line.logger) }
}

fn mcp_level(level: Level) -> LoggingLevel {
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
