//! The invoices that a caller may see, as filtered by the service. PostgreSQL enforces the same by
//! itself, and verifies the caller independently (migrations/postgres).

use drawbridge_sdk::transaction_token::Principal;

use super::Access;

/// The invoices that an operation may see. Statements bind it as their first three parameters.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The principal.
    pub(super) owner: String,
    /// The tenant, encoded as in the principal. Empty: no tenant, so nothing is shared.
    pub(super) tenant: String,
    /// Whether all invoices of the tenant are visible.
    pub(super) whole_tenant: bool,
    /// Disables the service's filter, to test PostgreSQL's.
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

    /// The same without the service's filter.
    #[cfg(test)]
    pub(crate) fn unfiltered(principal: &Principal, access: Access) -> Self {
        Self { unfiltered: true, ..Self::of(principal, access) }
    }

    /// The condition that rows of `invoices` must meet.
    pub(super) fn visibility_condition(&self) -> &'static str {
        #[cfg(test)]
        if self.unfiltered {
            return "TRUE";
        }
        "(owner = $1 OR (tenant = $2 AND tenant <> '' AND (shared OR $3)))"
    }

    /// The texts that statements bind.
    pub(super) fn bound_texts(&self) -> [&str; 2] {
        [&self.owner, &self.tenant]
    }

    /// Whether the caller has a tenant to share with.
    pub(crate) fn has_tenant(&self) -> bool {
        !self.tenant.is_empty()
    }
}
