use drawbridge_proto::auth::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::Identity;

/// A caller in test cases and on the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct PrincipalSpec {
    /// The caller's issuer. Default: the development authorization server of `drawbridge up`.
    #[arg(long, default_value = ISSUER)]
    pub issuer: String,
    /// The caller's subject at that issuer: the `sub` of its tokens.
    #[arg(long, visible_alias = "user", default_value = SUBJECT)]
    pub subject: String,
    /// The OAuth client.
    #[arg(long, default_value = "")]
    pub client: String,
    /// The tenant.
    #[arg(long, default_value = "")]
    pub tenant: String,
    /// A group in the token. Repeat, or separate by commas.
    #[arg(long = "group", value_delimiter = ',')]
    pub groups: Vec<String>,
    /// A role in the token. Repeat, or separate by commas.
    #[arg(long = "role", value_delimiter = ',')]
    pub roles: Vec<String>,
    /// A scope of the token. Repeat, or separate by commas.
    #[arg(long = "scope", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// The user's email address.
    #[arg(long)]
    pub email: Option<String>,
    /// The user authenticated with more than one factor.
    #[arg(long)]
    pub mfa: bool,
    /// The caller is a program that acts on its own behalf.
    #[arg(long)]
    pub workload: bool,
}

const ISSUER: &str = "http://127.0.0.1:7100";
const SUBJECT: &str = "example";

impl Default for PrincipalSpec {
    fn default() -> Self {
        Self {
            issuer: ISSUER.to_owned(),
            subject: SUBJECT.to_owned(),
            client: String::new(),
            tenant: String::new(),
            groups: Vec::new(),
            roles: Vec::new(),
            scopes: Vec::new(),
            email: None,
            mfa: false,
            workload: false,
        }
    }
}

impl From<&PrincipalSpec> for Identity {
    fn from(spec: &PrincipalSpec) -> Self {
        let spec = spec.clone();
        Self {
            principal: pb::Principal {
                issuer: spec.issuer,
                subject: spec.subject,
                client_id: spec.client,
                tenant: spec.tenant,
                scopes: spec.scopes,
                ..pb::Principal::default()
            },
            groups: spec.groups,
            roles: spec.roles,
            email: spec.email,
            mfa: spec.mfa,
            workload: spec.workload,
        }
    }
}
