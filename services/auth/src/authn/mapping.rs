//! The mapping from claims to callers.

use drawbridge_config::issuers::{ClaimPaths, ClaimsTable};
use drawbridge_proto::auth::v1 as pb;
use serde_json::Value;

use super::{Identity, TokenError, claims::Claims, tenants::Tenants};

/// Names of the claim for the OAuth client.
const CLIENT: [&str; 4] = ["client_id", "azp", "appid", "cid"];
/// Claims that mark groups or roles as omitted from a token.
const OVERAGE_CLAIMS: [&str; 3] = ["_claim_names.groups", "_claim_names.roles", "hasgroups"];

/// Paths of claims. For a single value the first path with a value counts; for lists all paths do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) tenant: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) roles: Vec<String>,
    pub(super) email: Vec<String>,
    pub(super) mfa: Vec<String>,
    /// Values of the `mfa` claim that mean more than one factor, besides `true`.
    pub(super) mfa_values: Vec<String>,
    /// The prefix of its groups and roles in policies.
    pub(super) group_prefix: String,
    /// The tenants that it may name.
    pub(super) tenants: Tenants,
}

impl Mapping {
    /// This mapping with the overrides of an issuers file, for an issuer that may name these
    /// tenants.
    pub(super) fn overridden(self, table: ClaimsTable, tenants: Tenants) -> Self {
        let namespace = table.namespace;
        let choose = |chosen: Option<ClaimPaths>, name: &str, default: Vec<String>| match chosen {
            Some(paths) => paths.into(),
            None => namespace
                .iter()
                .map(|namespace| format!("{namespace}{name}"))
                .chain(default)
                .collect(),
        };
        Self {
            tenant: choose(table.tenant, "tenant", self.tenant),
            groups: choose(table.groups, "groups", self.groups),
            roles: choose(table.roles, "roles", self.roles),
            email: choose(table.email, "email", self.email),
            mfa: choose(table.mfa, "mfa", self.mfa),
            mfa_values: table.mfa_values.unwrap_or(self.mfa_values),
            group_prefix: table.group_prefix.unwrap_or(self.group_prefix),
            tenants,
        }
    }

    /// The caller of these claims, except whether it is a program.
    pub(super) fn identity(&self, issuer: &str, claims: &Claims) -> Result<Identity, TokenError> {
        if OVERAGE_CLAIMS
            .iter()
            .any(|path| claims.at(path).is_some_and(|value| *value != Value::Bool(false)))
        {
            return Err(TokenError::Overage);
        }
        let subject =
            claims.text("sub")?.filter(|subject| !subject.is_empty()).ok_or(TokenError::Claims)?;
        let mut client = "";
        for name in CLIENT {
            if let Some(found) = claims.text(name)? {
                client = found;
                break;
            }
        }
        Ok(Identity {
            principal: pb::Principal {
                issuer: issuer.to_owned(),
                subject: subject.to_owned(),
                client_id: client.to_owned(),
                tenant: self.tenants.bind(one(claims, &self.tenant)?.unwrap_or_default())?,
                scopes: scopes(claims)?,
                ..pb::Principal::default()
            },
            groups: self.prefixed(many(claims, &self.groups)?),
            roles: self.prefixed(many(claims, &self.roles)?),
            email: self.email(claims)?,
            mfa: self.mfa(claims)?,
            workload: false,
        })
    }

    /// Names as policies see them. Without prefixes, equal names of two issuers would mean
    /// different users.
    fn prefixed(&self, names: Vec<String>) -> Vec<String> {
        match self.group_prefix.as_str() {
            "" => names,
            prefix => names.into_iter().map(|name| format!("{prefix}{name}")).collect(),
        }
    }

    /// The email address, unless the issuer marks it as unverified.
    fn email(&self, claims: &Claims) -> Result<Option<String>, TokenError> {
        let unverified = match claims.at("email_verified") {
            Some(Value::Bool(verified)) => !verified,
            Some(other) => other != "true",
            None => false,
        };
        Ok(one(claims, &self.email)?.filter(|_| !unverified).map(ToOwned::to_owned))
    }

    fn mfa(&self, claims: &Claims) -> Result<bool, TokenError> {
        for path in &self.mfa {
            match claims.at(path) {
                Some(Value::Bool(shown)) if *shown => return Ok(true),
                Some(Value::Bool(_)) => {}
                _ => {
                    let shown = claims.list(path)?;
                    if shown.iter().any(|shown| self.mfa_values.iter().any(|value| value == shown))
                    {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

/// Scopes in one string or a list (RFC 8693 section 4.2; Entra and Okta use `scp`).
fn scopes(claims: &Claims) -> Result<Vec<String>, TokenError> {
    let name = if claims.has("scope") { "scope" } else { "scp" };
    let scopes = claims.list(name)?;
    Ok(scopes.into_iter().flat_map(str::split_whitespace).map(ToOwned::to_owned).collect())
}

/// A single value. A list of several is ambiguous.
fn one<'a>(claims: &'a Claims, paths: &[String]) -> Result<Option<&'a str>, TokenError> {
    for path in paths {
        match claims.list(path)?.as_slice() {
            [] => {}
            [one] => return Ok(Some(one)),
            _ => return Err(TokenError::Claims),
        }
    }
    Ok(None)
}

fn many(claims: &Claims, paths: &[String]) -> Result<Vec<String>, TokenError> {
    let mut all = Vec::new();
    for path in paths {
        for found in claims.list(path)? {
            if !all.iter().any(|known| known == found) {
                all.push(found.to_owned());
            }
        }
    }
    Ok(all)
}
