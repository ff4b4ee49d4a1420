//! The test harness: boots the real mesh and its dependencies on free ports.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a failed precondition fails the test"
)]

mod audit;
mod browser;
mod bundles;
pub mod cached;
mod client;
mod collector;
pub mod conformance;
pub mod fleet;
mod issuer;
mod keycloak;
mod mesh;
mod moto;
pub mod notes;
mod peers;
mod postgres;
mod proxy;
mod redis;
mod service_process;
mod spy;
mod tcp_proxy;
mod tls;
mod tools;
mod vault;

pub use self::audit::{audit_calls, audit_decisions, audit_events};
pub use self::redis::{Redis, RedisCluster, RedisSentinel};
pub use browser::{authorize_as, sign_in};
pub use bundles::{FileServer, OciRegistry};
pub use client::{Client, REQUEST_ID, Reply};
pub use collector::{Collector, DataPoint, LogRecord, Span};
pub use issuer::{TestIssuer, now};
pub use keycloak::Keycloak;
pub use mesh::{
    Auth, Edge, REPLICA_SECRET, TestMesh, copy_folder, permit, serve_cached, serve_conformance,
    serve_notes, uncached,
};
pub use moto::Moto;
pub use peers::connect;
pub use postgres::Postgres;
pub use proxy::{Proxy, ProxyMode};
pub use service_process::ServiceProcess;
pub use spy::Spy;
pub use tcp_proxy::{TcpProxy, UpstreamState};
pub use tls::{SignedCertificate, TestAuthority, TlsListener};
pub use tools::{
    chromium, conformance_suite, go_client, go_modules, java_client, node_modules, node_modules_of,
    program, python, python_sdk, python_wheels, python_with, repository, tool,
};
pub use vault::{Vault, bao};
