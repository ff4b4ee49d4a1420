//! How services call one another: mTLS, channels, gRPC layers, call context, transaction tokens and keys.

mod call;
mod call_log;
mod channel;
pub mod fetch;
mod grpc;
pub mod jwks;
mod metrics;
mod mtls;
pub mod reflection;
mod status;
pub mod transaction_token;

pub use self::{
    call::{CallContext, TXN_TOKEN, client_span, end_client_span, with_transaction_token},
    call_log::LoggedCaller,
    channel::{
        BalancedChannel, ChannelError, Replica, ReplicaChannel, ReplicaCounts, ReplicaDocument,
        ReplicaDocuments, ReplicaFollower, connect,
    },
    grpc::{GrpcServer, GrpcService, Peer},
    metrics::METRICS,
    mtls::{MtlsConfig, MtlsError, MtlsServerConfig, Peers, SpiffeId, SpiffeIdError, SvidError},
    status::{REASON, status_name, status_text},
};
