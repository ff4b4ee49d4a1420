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

// A module `<area>::v1` for each folder `proto/drawbridge/<area>/v1`.
include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
