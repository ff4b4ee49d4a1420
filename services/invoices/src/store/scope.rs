//! What a caller may see, as the service itself says it. PostgreSQL says the same once more, and does not take the
//! service's word for who the caller is (migrations/postgres).

use drawbridge_sdk::identity::Principal;

use super::Access;

/// Whose invoices a work may see. Statements take it as their first three parameters.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The principal.
    pub(super) owner: String,
    /// The tenant, as it is written in the principal. Empty: none, in which nothing is shared.
    pub(super) tenant: String,
    /// Whether whatever the tenant has is seen.
    pub(super) whole_tenant: bool,
    /// The service filters nothing, as if it had forgotten to.
    #[cfg(test)]
    unfiltered: bool,
}

impl Scope {
    pub(crate) fn of(principal: &Principal, access: Access) -> Self {
        Self {
            owner: principal.as_str().to_owned(),
            tenant: principal.as_str().split('@').nth(1).unwrap_or_default().to_owned(),
            whole_tenant: access == Access::Approve,
            #[cfg(test)]
            unfiltered: false,
        }
    }

    /// The same, of a service that filters nothing.
    #[cfg(test)]
    pub(crate) fn unfiltered(principal: &Principal, access: Access) -> Self {
        Self { unfiltered: true, ..Self::of(principal, access) }
    }

    /// The condition that rows of `invoices` must meet.
    pub(super) fn visible(&self) -> &'static str {
        #[cfg(test)]
        if self.unfiltered {
            return "TRUE";
        }
        "(owner = $1 OR (tenant = $2 AND tenant <> '' AND (shared OR $3)))"
    }

    /// The texts that statements take.
    pub(super) fn texts(&self) -> [&str; 2] {
        [&self.owner, &self.tenant]
    }

    /// Whether anything can be shared.
    pub(crate) fn has_tenant(&self) -> bool {
        !self.tenant.is_empty()
    }
}
