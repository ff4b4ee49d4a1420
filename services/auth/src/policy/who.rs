use drawbridge_proto::auth::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::{Identity, decision_log::DecisionRecord};

/// A caller as a person writes one down, to ask what policies would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Who {
    /// Who vouches for the caller. By default the development authorization server of `drawbridge up`.
    #[arg(long, default_value = ISSUER)]
    pub issuer: String,
    /// Who it is, at that issuer: the `sub` of its tokens.
    #[arg(long, visible_alias = "user", default_value = SUBJECT)]
    pub subject: String,
    /// The OAuth client.
    #[arg(long, default_value = "")]
    pub client: String,
    /// The tenant.
    #[arg(long, default_value = "")]
    pub tenant: String,
    /// A group that the token names. Repeat, or separate by commas.
    #[arg(long = "group", value_delimiter = ',')]
    pub groups: Vec<String>,
    /// A role that the token names. Repeat, or separate by commas.
    #[arg(long = "role", value_delimiter = ',')]
    pub roles: Vec<String>,
    /// A scope that the token holds. Repeat, or separate by commas.
    #[arg(long = "scope", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// The person's address.
    #[arg(long)]
    pub email: Option<String>,
    /// The person showed more than one factor.
    #[arg(long)]
    pub mfa: bool,
    /// A program that calls in its own name.
    #[arg(long)]
    pub workload: bool,
}

const ISSUER: &str = "http://127.0.0.1:7100";
const SUBJECT: &str = "somebody";

impl Default for Who {
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

impl From<&Who> for Identity {
    fn from(who: &Who) -> Self {
        let who = who.clone();
        Self {
            principal: pb::Principal {
                issuer: who.issuer,
                subject: who.subject,
                client_id: who.client,
                tenant: who.tenant,
                scopes: who.scopes,
                ..pb::Principal::default()
            },
            groups: who.groups,
            roles: who.roles,
            email: who.email,
            mfa: who.mfa,
            workload: who.workload,
        }
    }
}

impl From<&DecisionRecord> for Who {
    fn from(record: &DecisionRecord) -> Self {
        let record = record.clone();
        Self {
            issuer: record.issuer,
            subject: record.subject,
            client: record.client_id,
            tenant: record.tenant,
            groups: record.groups,
            roles: record.roles,
            scopes: record.scopes,
            email: record.email,
            mfa: record.mfa,
            workload: record.workload,
        }
    }
}
