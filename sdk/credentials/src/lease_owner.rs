use std::fmt;

use super::on_behalf_of::OnBehalfOf;
use drawbridge_transport::transaction_token::{Actor, Principal};

/// The owner of a session and its leases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum LeaseOwner {
    /// A principal. Each actor for it has a session of its own, so that Vault's audit log names
    /// both.
    Caller { principal: Principal, actor: Option<Box<Actor>> },
    /// The service itself.
    Service,
}

impl LeaseOwner {
    pub(super) fn new(on_behalf_of: OnBehalfOf<'_>) -> Self {
        match on_behalf_of {
            OnBehalfOf::Caller(caller) => Self::Caller {
                principal: caller.principal().clone(),
                actor: caller.claims.act.clone(),
            },
            OnBehalfOf::Service => Self::Service,
        }
    }

    /// The principal, with or without an actor.
    pub(super) fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Caller { principal, .. } => Some(principal),
            Self::Service => None,
        }
    }
}

impl fmt::Display for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller { principal, actor: None } => write!(f, "{principal}"),
            Self::Caller { principal, actor: Some(actor) } => {
                write!(f, "{principal} by {}", actor.sub)
            }
            Self::Service => f.write_str("the service itself"),
        }
    }
}
