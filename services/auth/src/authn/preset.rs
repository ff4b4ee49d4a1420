//! Token formats of well-known issuers, and of others, which have no preset.
//! docs/how-to/connect-an-identity-provider.md documents them.

use drawbridge_config::issuers::Preset;
use url::Url;

use super::{TokenError, claims::Claims, mapping::Mapping, tenants::Tenants, token::Jwt};

/// Claims of ID tokens and logout tokens that unmarked access tokens do not have.
const NON_ACCESS_CLAIMS: [&str; 4] = ["nonce", "at_hash", "c_hash", "events"];

/// The claims of its tokens.
pub(super) fn mapping(preset: Option<Preset>) -> Mapping {
    let paths = |paths: &[&str]| paths.iter().copied().map(ToOwned::to_owned).collect();
    let (tenant, groups, roles, email): (&[&str], &[&str], &[&str], &[&str]) = match preset {
        None => (
            &["tenant"],
            &["groups", "cognito:groups"],
            &["roles", "realm_access.roles"],
            &["email"],
        ),
        Some(Preset::Keycloak) => (&["tenant"], &["groups"], &["realm_access.roles"], &["email"]),
        Some(Preset::Auth0) => (&["org_id"], &["groups"], &["roles"], &["email"]),
        // Entra does not verify the `email` of an account.
        Some(Preset::Entra) => (&["tid"], &["groups"], &["roles"], &[]),
        Some(Preset::Google) => (&["hd"], &[], &[], &["email"]),
        Some(Preset::Kubernetes) => (&[], &["kubernetes.io.namespace"], &[], &[]),
    };
    Mapping {
        tenant: paths(tenant),
        groups: paths(groups),
        roles: paths(roles),
        email: paths(email),
        mfa: paths(&["amr"]),
        mfa_values: paths(&["mfa"]),
        // Namespace names are chosen by their creators, so they get a prefix.
        group_prefix: if preset == Some(Preset::Kubernetes) {
            "kubernetes:".to_owned()
        } else {
            String::new()
        },
        tenants: Tenants::default(),
    }
}

/// The default prefix of tenant names. Tenant names occur in paths, of secrets for example, so it
/// has no colon.
pub(super) fn tenant_prefix(preset: Option<Preset>) -> Option<&'static str> {
    (preset == Some(Preset::Kubernetes)).then_some("kubernetes.")
}

/// Where an issuer of this kind serves its keys, if its metadata is not asked for them: Kubernetes'
/// names an address of the API server that pods need not reach.
pub(super) fn jwks_url(preset: Option<Preset>, issuer: &str) -> Option<Url> {
    let issuer = (preset == Some(Preset::Kubernetes)).then_some(issuer.trim_end_matches('/'))?;
    format!("{issuer}/openid/v1/jwks").parse().ok()
}

/// Rejects tokens that are not access tokens, such as ID tokens (RFC 9068 section 5, RFC 8725
/// section 3.11).
pub(super) fn check_kind(
    preset: Option<Preset>,
    jwt: &Jwt<'_>,
    require_at_jwt: bool,
) -> Result<(), TokenError> {
    let header = jwt.header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
    match header.strip_prefix("application/").unwrap_or(&header) {
        "at+jwt" => return Ok(()),
        // Many issuers write `JWT` or omit the type.
        "" | "jwt" if !require_at_jwt => {}
        _ => return Err(TokenError::Header("type")),
    }
    let claims = &jwt.claims;
    // Keycloak and Cognito use a claim for the kind.
    for (claim, access) in [("typ", "Bearer"), ("token_use", "access")] {
        match claims.text(claim)? {
            Some(kind) if kind.eq_ignore_ascii_case(access) => return Ok(()),
            Some(_) => return Err(TokenError::Kind),
            None => {}
        }
    }
    // Entra names the client in access tokens only.
    let names_client = claims.has("azp") || claims.has("appid");
    if NON_ACCESS_CLAIMS.iter().any(|claim| claims.has(claim))
        || (preset == Some(Preset::Entra) && !names_client)
    {
        return Err(TokenError::Kind);
    }
    Ok(())
}

/// Whether the token was issued to a program that acts on its own behalf.
pub(super) fn is_workload(
    preset: Option<Preset>,
    claims: &Claims,
    subject: &str,
    client: &str,
) -> bool {
    let equals = |claim: &str, value: &str| claims.at(claim).is_some_and(|found| found == value);
    let is_own = equals("gty", "client-credentials") || (!client.is_empty() && client == subject);
    is_own
        || match preset {
            // A client's service account has no session. A user with such a name has one.
            Some(Preset::Keycloak) => {
                let own = format!("service-account-{client}");
                equals("preferred_username", &own) && !claims.has("sid")
            }
            // Scopes are delegated by a user.
            Some(Preset::Entra) => equals("idtyp", "app") || !claims.has("scp"),
            // A cluster issues tokens to service accounts only.
            Some(Preset::Kubernetes) => true,
            None | Some(Preset::Auth0 | Preset::Google) => false,
        }
}
