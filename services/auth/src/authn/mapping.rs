//! Which claims say what of a caller.

use drawbridge_proto::auth::v1 as pb;
use serde::Deserialize;
use serde_json::Value;

use super::{Identity, TokenError, claims::Claims, tenants::Tenants};

/// Names under which issuers write the OAuth client.
const CLIENT: [&str; 4] = ["client_id", "azp", "appid", "cid"];
/// Claims that policies read, and that may have been left out of a token.
const LEFT_OUT: [&str; 3] = ["_claim_names.groups", "_claim_names.roles", "hasgroups"];

/// Paths of the claims that tell of a caller. Where one thing is asked for, the first path that leads anywhere
/// counts; where many are, all paths do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) tenant: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) roles: Vec<String>,
    pub(super) email: Vec<String>,
    pub(super) mfa: Vec<String>,
    /// What stands in the `mfa` claim of a person who showed more than one factor, if it is not `true`.
    pub(super) mfa_values: Vec<String>,
    /// What the names of its groups and roles begin with in policies.
    pub(super) group_prefix: String,
    /// The tenants that it may name.
    pub(super) tenants: Tenants,
}

/// What a config file says instead.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MappingTable {
    /// What this issuer's own claims begin with, such as `https://acme.example/`.
    namespace: Option<String>,
    tenant: Option<Paths>,
    pub(super) tenant_prefix: Option<String>,
    groups: Option<Paths>,
    roles: Option<Paths>,
    email: Option<Paths>,
    mfa: Option<Paths>,
    mfa_values: Option<Vec<String>>,
    group_prefix: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected the path of a claim, or a list of them")]
enum Paths {
    One(String),
    Many(Vec<String>),
}

impl MappingTable {
    /// This table, over `defaults`, for an issuer that may name these tenants.
    pub(super) fn over(self, defaults: Mapping, tenants: Tenants) -> Mapping {
        let namespace = self.namespace;
        let choose = |chosen: Option<Paths>, name: &str, default: Vec<String>| match chosen {
            Some(Paths::One(path)) => vec![path],
            Some(Paths::Many(paths)) => paths,
            None => namespace
                .iter()
                .map(|namespace| format!("{namespace}{name}"))
                .chain(default)
                .collect(),
        };
        Mapping {
            tenant: choose(self.tenant, "tenant", defaults.tenant),
            groups: choose(self.groups, "groups", defaults.groups),
            roles: choose(self.roles, "roles", defaults.roles),
            email: choose(self.email, "email", defaults.email),
            mfa: choose(self.mfa, "mfa", defaults.mfa),
            mfa_values: self.mfa_values.unwrap_or(defaults.mfa_values),
            group_prefix: self.group_prefix.unwrap_or(defaults.group_prefix),
            tenants,
        }
    }
}

impl Mapping {
    /// The caller that the claims tell of, apart from whether it is a program.
    pub(super) fn identity(&self, issuer: &str, claims: &Claims) -> Result<Identity, TokenError> {
        if LEFT_OUT
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

    /// Names as policies know them: those of two issuers may be the same and mean other people.
    fn prefixed(&self, names: Vec<String>) -> Vec<String> {
        match self.group_prefix.as_str() {
            "" => names,
            prefix => names.into_iter().map(|name| format!("{prefix}{name}")).collect(),
        }
    }

    /// An address that the issuer says is nobody's yet does not count.
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

/// Scopes, as OAuth writes them in one text or as a list (RFC 8693 section 4.2; `scp` is Entra's and Okta's).
fn scopes(claims: &Claims) -> Result<Vec<String>, TokenError> {
    let name = if claims.has("scope") { "scope" } else { "scp" };
    let scopes = claims.list(name)?;
    Ok(scopes.into_iter().flat_map(str::split_whitespace).map(ToOwned::to_owned).collect())
}

/// One text. A list of several does not say which one is meant.
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
