//! The contracts: protobuf messages, gRPC clients and servers, and their descriptors.
//!
//! The generated types are built in `OUT_DIR` from `proto/`, whose comments are their
//! documentation.

#![allow(
    missing_docs,
    clippy::all,
    clippy::clone_on_ref_ptr,
    unreachable_pub,
    reason = "generated code"
)]

mod redacted;

/// All contracts as an encoded `FileDescriptorSet` with comments and custom options, for server
/// reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

pub mod mcp {
    pub mod v1 {
        tonic::include_proto!("drawbridge.mcp.v1");
    }
}

pub mod auth {
    pub mod v1 {
        tonic::include_proto!("drawbridge.auth.v1");
    }
}

pub mod code {
    pub mod v1 {
        tonic::include_proto!("drawbridge.code.v1");
    }
}

pub mod invoices {
    pub mod v1 {
        tonic::include_proto!("drawbridge.invoices.v1");
    }
}

pub mod tickets {
    pub mod v1 {
        tonic::include_proto!("drawbridge.tickets.v1");
    }
}
