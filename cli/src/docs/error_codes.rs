//! The error codes that clients of the edge meet.

use drawbridge_edge::{JSON_RPC_CODES, REFUSAL_REASONS, grpc_error_codes};
use drawbridge_transport::status_name;

use super::table;

pub(super) fn parts() -> impl Iterator<Item = (String, String)> {
    let json_rpc = JSON_RPC_CODES.iter();
    let json_rpc = json_rpc.map(|row| [row.code.to_string(), row.meaning.to_owned()]);
    let refusals = REFUSAL_REASONS.iter().map(|row| {
        let status = row.status.as_u16().to_string();
        [format!("`{}`", row.reason), status, row.code.to_string(), row.meaning.to_owned()]
    });
    let grpc = grpc_error_codes().map(|row| {
        let tool = if row.is_for_model { "a result with `isError`" } else { "the JSON-RPC error" };
        [format!("`{}`", status_name(row.status)), tool.to_owned(), row.json_rpc.to_string()]
    });
    [
        ("error-codes json-rpc", table(["code", "meaning"], json_rpc)),
        ("error-codes refusals", table(["reason", "HTTP", "JSON-RPC", "meaning"], refusals)),
        ("error-codes grpc", table(["status", "a tool's caller gets", "JSON-RPC"], grpc)),
    ]
    .map(|(name, table)| (name.to_owned(), table))
    .into_iter()
}
