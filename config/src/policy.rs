//! The JSON files of a policy folder that an operator writes: memberships and tests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ConfigError, ConfigText, Mistakes, Spanned};

/// The largest file of a policy folder, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Groups and roles that tokens do not carry: a file in `entities/`.
pub type Members = Vec<Member>;

/// A principal, group or role, in Cedar's JSON form. Only its parents may be given.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// A `User` or a `Workload` with the id `<issuer>#<subject>`, a `Group` or a `Role`.
    pub uid: Spanned<EntityId>,
    /// None: attributes come from the token.
    #[serde(default)]
    pub attrs: Spanned<Map<String, Value>>,
    /// The groups and roles that it is in.
    #[serde(default)]
    pub parents: Vec<Spanned<EntityId>>,
}

/// An entity's type and id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntityId {
    /// The type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The id.
    pub id: String,
}

/// Tests of policies: a file in `tests/`.
pub type Cases = Vec<Spanned<Case>>;

/// One policy test.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The expectation, as a sentence.
    pub name: String,
    /// The caller.
    #[serde(default)]
    pub principal: PrincipalSpec,
    /// The tool, resource or prompt; its action has the same name.
    pub action: String,
    /// The item's uid in Cedar's notation, such as `Tool::"code_search"`, to check which item is
    /// meant.
    pub resource: Option<String>,
    /// The arguments; omitted ones have their defaults. Absent: whether the item is listed.
    pub arguments: Option<Value>,
    /// The expected outcome.
    pub expect: Expected,
    /// The policies that must determine the outcome, if tested.
    pub policies: Option<Vec<String>>,
}

/// The expected outcome of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Allowed; without arguments: for all arguments.
    Allow,
    /// It depends on the arguments, which are not given.
    // Cases of earlier versions have the other word.
    #[serde(alias = "perhaps")]
    Conditional,
    /// Denied.
    Deny,
}

/// A caller in test cases and on the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct PrincipalSpec {
    /// The caller's issuer. Default: the development authorization server of `drawbridge up`.
    #[arg(long, default_value = "http://127.0.0.1:7100")]
    pub issuer: String,
    /// The caller's subject at that issuer: the `sub` of its tokens.
    #[arg(long, visible_alias = "user", default_value = "example")]
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

impl Default for PrincipalSpec {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}

/// Reads memberships.
///
/// # Errors
/// The mistakes of the file.
pub fn read_members(text: &ConfigText) -> Result<Members, ConfigError> {
    let mut mistakes = Mistakes::new(text);
    let members: Option<Members> = mistakes.parse_json();
    for member in members.iter().flatten() {
        member.check(&mut mistakes);
    }
    mistakes.finish(members)
}

/// Reads tests of policies.
///
/// # Errors
/// The mistakes of the file.
pub fn read_cases(text: &ConfigText) -> Result<Cases, ConfigError> {
    text.parse_json()
}

impl Member {
    fn check(&self, mistakes: &mut Mistakes<'_>) {
        let EntityId { type_name, id } = &*self.uid;
        match type_name.as_str() {
            "User" | "Workload" if !id.contains('#') => {
                let problem = format!("the id of a {type_name} is <issuer>#<subject>");
                mistakes.push(self.uid.span(), problem);
            }
            "User" | "Workload" | "Group" | "Role" => {}
            _ => {
                let problem =
                    format!("a member must be a User, Workload, Group or Role, not {type_name}");
                mistakes.push(self.uid.span(), problem);
            }
        }
        if !self.attrs.is_empty() {
            let problem = "attributes come from the token; only parents may be given here";
            mistakes.push(self.attrs.span(), problem);
        }
        // The token determines the tenant: tool services trust the token.
        for parent in &self.parents {
            if !matches!(parent.type_name.as_str(), "Group" | "Role") {
                let problem =
                    format!("a parent must be a Group or a Role, not {}", parent.type_name);
                mistakes.push(parent.span(), problem);
            }
        }
    }
}
