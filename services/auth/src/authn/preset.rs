//! How well-known issuers write their tokens. What is here is documented in docs/identity.md.

use serde::Deserialize;

use super::{TokenError, claims::Claims, mapping::Mapping, tenants::Tenants, token::Jwt};

/// Claims that ID tokens and logout tokens have, and access tokens that are not marked as such have not.
const OF_OTHER_KINDS: [&str; 4] = ["nonce", "at_hash", "c_hash", "events"];

/// An issuer whose tokens are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Preset {
    /// None in particular.
    #[default]
    #[serde(skip)]
    Plain,
    Keycloak,
    Auth0,
    Entra,
    Google,
    Kubernetes,
}

impl Preset {
    pub(super) fn mapping(self) -> Mapping {
        let paths = |paths: &[&str]| paths.iter().copied().map(ToOwned::to_owned).collect();
        let (tenant, groups, roles, email): (&[&str], &[&str], &[&str], &[&str]) = match self {
            Self::Plain => (
                &["tenant"],
                &["groups", "cognito:groups"],
                &["roles", "realm_access.roles"],
                &["email"],
            ),
            Self::Keycloak => (&["tenant"], &["groups"], &["realm_access.roles"], &["email"]),
            Self::Auth0 => (&["org_id"], &["groups"], &["roles"], &["email"]),
            // Nobody verifies the `email` of an Entra account.
            Self::Entra => (&["tid"], &["groups"], &["roles"], &[]),
            Self::Google => (&["hd"], &[], &[], &["email"]),
            Self::Kubernetes => (&[], &["kubernetes.io.namespace"], &[], &[]),
        };
        Mapping {
            tenant: paths(tenant),
            groups: paths(groups),
            roles: paths(roles),
            email: paths(email),
            mfa: paths(&["amr"]),
            mfa_values: paths(&["mfa"]),
            // Whoever may make a namespace chooses its name.
            group_prefix: if self == Self::Kubernetes {
                "kubernetes:".to_owned()
            } else {
                String::new()
            },
            tenants: Tenants::default(),
        }
    }

    /// What the names of its tenants begin with where nothing is configured. They stand in paths, of secrets for
    /// example, so it has no colon.
    pub(super) fn tenant_prefix(self) -> Option<&'static str> {
        (self == Self::Kubernetes).then_some("kubernetes.")
    }

    /// Whether the issuer's access tokens are JWTs that it publishes keys for.
    pub(super) fn has_keys(self) -> bool {
        self != Self::Google
    }

    /// Refuses what is no access token, such as an ID token that somebody shows to the wrong door (RFC 9068
    /// section 5, RFC 8725 section 3.11).
    pub(super) fn check_kind(self, jwt: &Jwt<'_>, require_at_jwt: bool) -> Result<(), TokenError> {
        let header = jwt.header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        match header.strip_prefix("application/").unwrap_or(&header) {
            "at+jwt" => return Ok(()),
            // Many issuers write plain `JWT`, or nothing.
            "" | "jwt" if !require_at_jwt => {}
            _ => return Err(TokenError::Header("type")),
        }
        let claims = &jwt.claims;
        // Keycloak and Cognito say it in a claim.
        for (claim, access) in [("typ", "Bearer"), ("token_use", "access")] {
            match claims.text(claim)? {
                Some(kind) if kind.eq_ignore_ascii_case(access) => return Ok(()),
                Some(_) => return Err(TokenError::Kind),
                None => {}
            }
        }
        // Entra names the client in access tokens alone.
        let names_client = claims.has("azp") || claims.has("appid");
        if OF_OTHER_KINDS.iter().any(|claim| claims.has(claim))
            || (self == Self::Entra && !names_client)
        {
            return Err(TokenError::Kind);
        }
        Ok(())
    }

    /// Whether the token was given to a program in its own name.
    pub(super) fn is_workload(self, claims: &Claims, subject: &str, client: &str) -> bool {
        let says = |claim: &str, value: &str| claims.at(claim).is_some_and(|found| found == value);
        let is_own = says("gty", "client-credentials") || (!client.is_empty() && client == subject);
        is_own
            || match self {
                // A client's own account has no session. A person may have chosen a name like that, and has one.
                Self::Keycloak => {
                    let own = format!("service-account-{client}");
                    says("preferred_username", &own) && !claims.has("sid")
                }
                // Scopes are what a person has delegated.
                Self::Entra => says("idtyp", "app") || !claims.has("scp"),
                // A cluster issues tokens to service accounts alone.
                Self::Kubernetes => true,
                Self::Plain | Self::Auth0 | Self::Google => false,
            }
    }
}
