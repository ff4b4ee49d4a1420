//! What a tool service depends on: a thin face over `drawbridge-runtime`, `drawbridge-transport`,
//! `drawbridge-contract` and `drawbridge-credentials`.

pub use drawbridge_contract::{self as contract, dynamic};
#[cfg(feature = "credentials")]
pub use drawbridge_credentials as credentials;
pub use drawbridge_runtime::*;
pub use drawbridge_transport::*;
