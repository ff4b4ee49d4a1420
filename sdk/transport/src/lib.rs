//! How services call one another: mTLS, channels, gRPC layers, call context, transaction tokens and keys.

mod call;
mod channel;
pub mod fetch;
mod grpc;
pub mod jwks;
mod mtls;
pub mod reflection;
mod status;
pub mod transaction_token;

pub use self::{
    call::{CallContext, TXN_TOKEN, client_span, end_client_span, with_transaction_token},
    channel::{BalancedChannel, ChannelError, connect},
    grpc::{GrpcServer, Peer},
    mtls::{MtlsConfig, MtlsError, MtlsServerConfig, Peers, SpiffeId, SpiffeIdError, SvidError},
    status::status_text,
};
