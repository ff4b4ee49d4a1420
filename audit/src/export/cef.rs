//! CEF (ArcSight Common Event Format).

use super::{Common, PRODUCT, milliseconds};
use crate::Record;

/// A record as a line of CEF (ArcSight Common Event Format). `None` for events of the log itself.
#[must_use]
pub fn to_cef(record: &Record) -> Option<String> {
    let common = Common::of(&record.event)?;
    let severity = if common.is_success { 3 } else { 6 };
    let name = format!("{} {}", common.activity_name, common.operation);
    let user = common.user.unwrap_or_default();
    let extensions = [
        ("rt", milliseconds(record).to_string()),
        ("outcome", if common.is_success { "success" } else { "failure" }.to_owned()),
        ("reason", common.code),
        ("externalId", format!("{}#{}", record.log, record.seq)),
        ("suid", user.subject),
        ("sntdom", user.issuer),
        ("src", common.client_address),
        ("request", record.event.request_id().unwrap_or_default().to_owned()),
        ("destinationServiceName", common.service),
        ("cs1Label", if common.item.is_empty() { "" } else { "item" }.to_owned()),
        ("cs1", common.item),
    ];
    let extensions = extensions.iter().filter(|(_, value)| !value.is_empty());
    let extensions: Vec<_> = extensions
        .map(|(key, value)| format!("{key}={}", escape(value, '=').replace('\n', "\\n")))
        .collect();
    Some(format!(
        "CEF:0|{PRODUCT}|{PRODUCT}|{}|{}|{}|{severity}|{}",
        env!("CARGO_PKG_VERSION"),
        record.event.name(),
        escape(&name.replace('\n', " "), '|'),
        extensions.join(" ")
    ))
}

fn escape(text: &str, special: char) -> String {
    text.replace('\\', "\\\\").replace(special, &format!("\\{special}"))
}
