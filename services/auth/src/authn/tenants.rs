//! The tenants that an issuer may name.

use super::TokenError;

/// Allows any tenant in a list.
pub(super) const ANY_TENANT: &str = "*";

/// The tenants that one issuer may name.
///
/// INVARIANT: when there are several issuers, an issuer without configured tenants may name none.
/// An issuer writes tenants freely, so it could otherwise put its own users into a tenant of
/// another issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tenants {
    /// The prefix of its tenants' names outside the issuer.
    prefix: String,
    named: Named,
}

/// The tenants that an issuer may write into its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Named {
    /// Nothing is configured, and there is one issuer.
    #[default]
    Unbound,
    /// Any, as configured.
    Any,
    /// Only these.
    Only(Vec<String>),
}

impl Tenants {
    /// Tenants from `claims.tenant_prefix` and `tenants`.
    pub(super) fn new(prefix: Option<&str>, names: Option<Vec<String>>) -> Self {
        let named = match names {
            Some(names) if names == [ANY_TENANT] => Named::Any,
            Some(names) => Named::Only(names),
            None if prefix.is_some() => Named::Any,
            None => Named::Unbound,
        };
        Self { prefix: prefix.unwrap_or_default().to_owned(), named }
    }

    /// The tenant's name in policies, databases, Vault and limits, for a claimed one. Empty: no
    /// tenant.
    pub(super) fn bind(&self, claimed: &str) -> Result<String, TokenError> {
        if claimed.is_empty() {
            return Ok(String::new());
        }
        match &self.named {
            Named::Only(names) if !names.iter().any(|name| name == claimed) => {
                Err(TokenError::Tenant)
            }
            Named::Unbound | Named::Any | Named::Only(_) => Ok(format!("{}{claimed}", self.prefix)),
        }
    }

    /// Allows no tenant if nothing is configured, and returns whether that is so.
    pub(super) fn deny_unbound(&mut self) -> bool {
        let is_unbound = self.named == Named::Unbound;
        if is_unbound {
            self.named = Named::Only(Vec::new());
        }
        is_unbound
    }

    /// Whether both may give the same name to a tenant.
    pub(super) fn overlap(&self, other: &Self) -> bool {
        match (&self.named, &other.named) {
            (Named::Only(names), _) => {
                names.iter().any(|name| other.has(&format!("{}{name}", self.prefix)))
            }
            (_, Named::Only(_)) => other.overlap(self),
            _ => self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix),
        }
    }

    /// Whether it may give this name to a tenant.
    fn has(&self, bound: &str) -> bool {
        let own = bound.strip_prefix(&self.prefix).filter(|name| !name.is_empty());
        own.is_some_and(|name| self.bind(name).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(prefix: Option<&str>, names: Option<&[&str]>) -> Tenants {
        let names: Option<Vec<_>> =
            names.map(|names| names.iter().map(ToString::to_string).collect());
        Tenants::new(prefix, names)
    }

    #[test]
    fn a_tenant_is_limited_to_what_its_issuer_may_name() {
        let check = |tenants: &Tenants, claimed: &str, expected: Option<&str>| {
            assert_eq!(tenants.bind(claimed).ok().as_deref(), expected, "{tenants:?} {claimed:?}");
        };
        let prefixed = tenants(Some("partner:"), None);
        check(&prefixed, "acme", Some("partner:acme"));
        check(&prefixed, "partner:acme", Some("partner:partner:acme"));
        check(&prefixed, "", Some(""));
        let listed = tenants(None, Some(&["acme", "umbrella"]));
        check(&listed, "acme", Some("acme"));
        check(&listed, "", Some(""));
        for other in ["globex", "Acme", "acme ", "*"] {
            check(&listed, other, None);
        }
        let both = tenants(Some("partner:"), Some(&["acme"]));
        check(&both, "acme", Some("partner:acme"));
        check(&both, "umbrella", None);
        check(&tenants(None, Some(&[])), "acme", None);
        check(&tenants(None, Some(&["*"])), "acme", Some("acme"));
        check(&Tenants::default(), "acme", Some("acme"));
    }

    #[test]
    fn issuers_that_could_name_the_same_tenant_are_detected() {
        type Config<'a> = (Option<&'a str>, Option<&'a [&'a str]>);
        let check = |one: Config<'_>, other: Config<'_>, expected: bool| {
            let (one, other) = (tenants(one.0, one.1), tenants(other.0, other.1));
            assert_eq!(one.overlap(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.overlap(&one), expected, "{other:?} {one:?}");
        };
        check((None, Some(&["acme"])), (None, Some(&["umbrella", "acme"])), true);
        check((None, Some(&["acme"])), (None, Some(&["umbrella"])), false);
        check((None, Some(&["acme"])), (None, Some(&["*"])), true);
        check((None, Some(&["acme"])), (None, Some(&[])), false);
        check((None, Some(&["*"])), (Some("partner:"), None), true);
        check((Some("a"), None), (Some("ab"), None), true);
        check((Some("a:"), None), (Some("b:"), None), false);
        check((Some("p:"), None), (None, Some(&["p:acme"])), true);
        check((Some("p:"), None), (None, Some(&["acme", "p:"])), false);
        check((Some("p:"), Some(&["acme"])), (None, Some(&["p:acme"])), true);
        check((Some("p:"), Some(&["acme"])), (None, Some(&["acme"])), false);
    }
}
