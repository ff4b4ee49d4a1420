//! The instructions that gRPC services give to models.

use drawbridge_proto::mcp::v1 as mcp;
use prost_reflect::DescriptorPool;

use super::option;

/// The instructions of one gRPC service for models.
#[derive(Clone, Debug)]
pub struct ServiceInstructions {
    /// The gRPC service's full name.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The text.
    pub text: String,
}

/// The instructions of the named services, in the order of the contract.
pub fn instructions<'a>(
    pool: &'a DescriptorPool,
    services: &'a [String],
) -> impl Iterator<Item = ServiceInstructions> + 'a {
    let services = services.iter().filter_map(|name| pool.get_service_by_name(name));
    services.filter_map(|service| {
        let options: mcp::ServiceOptions = option(&service.options(), "drawbridge.mcp.v1.service")?;
        let mcp::ServiceOptions { namespace, instructions: text } = options;
        let service = service.full_name().to_owned();
        Some(ServiceInstructions { service, namespace, text })
            .filter(|instructions| !instructions.text.is_empty())
    })
}
