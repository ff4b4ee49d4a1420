//! What gRPC services tell models of themselves.

use drawbridge_proto::mcp::v1 as mcp;
use prost_reflect::DescriptorPool;

use super::option;

/// What a gRPC service tells models of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// The gRPC service's full name.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The text.
    pub text: String,
}

/// What the services of these names tell models of themselves, in the order of the contract.
pub fn instructions<'a>(
    pool: &'a DescriptorPool,
    services: &'a [String],
) -> impl Iterator<Item = Introduction> + 'a {
    let services = services.iter().filter_map(|name| pool.get_service_by_name(name));
    services.filter_map(|service| {
        let options: mcp::ServiceOptions = option(&service.options(), "drawbridge.mcp.v1.service")?;
        let mcp::ServiceOptions { namespace, instructions: text } = options;
        let service = service.full_name().to_owned();
        Some(Introduction { service, namespace, text }).filter(|one| !one.text.is_empty())
    })
}
