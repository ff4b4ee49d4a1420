use serde_json::{Value, json};

use crate::TestIssuer;

/// The audience of tokens for auth itself.
pub(super) const INTERNAL_AUDIENCE: &str = "drawbridge-auth";

/// A caller of one tool with its token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it calls.
    pub tool: &'static str,
    /// Whether policy permits it.
    pub is_permitted: bool,
    /// With which arguments.
    pub arguments: fn() -> Value,
    /// Its access token.
    pub token: String,
}

/// What callers of one kind are, and what they do.
struct Kind {
    groups: &'static [&'static str],
    tool: &'static str,
    arguments: fn() -> Value,
    is_permitted: bool,
}

const ENGINEERING: &[&str] = &["engineering"];
const SUPPORT: &[&str] = &["support"];
const TRAINEES: &[&str] = &["support-trainees"];
const FINANCE: &[&str] = &["finance"];

/// Each permission beside one that looks alike and is denied: by a group, or by an argument.
const KINDS: [Kind; 9] = [
    Kind::permitted(ENGINEERING, "code_search", || json!({ "query": "finance" })),
    Kind::denied(ENGINEERING, "tickets_search", none),
    Kind::permitted(SUPPORT, "tickets_search", none),
    Kind::denied(SUPPORT, "invoices_search", none),
    Kind::permitted(FINANCE, "invoices_search", none),
    Kind::denied(FINANCE, "code_search", || json!({ "query": "finance" })),
    Kind::permitted(TRAINEES, "tickets_get", || json!({ "ticket_id": "101" })),
    Kind::denied(TRAINEES, "tickets_reply", reply_to_customer),
    Kind::permitted(ENGINEERING, "code_list_files", none),
];

fn none() -> Value {
    json!({})
}

fn reply_to_customer() -> Value {
    json!({ "ticket_id": "101", "text": "Hello", "internal": false, "idempotency_key": "reply-01" })
}

impl Kind {
    const fn permitted(
        groups: &'static [&'static str],
        tool: &'static str,
        arguments: fn() -> Value,
    ) -> Self {
        Self { groups, tool, arguments, is_permitted: true }
    }

    const fn denied(
        groups: &'static [&'static str],
        tool: &'static str,
        arguments: fn() -> Value,
    ) -> Self {
        Self { is_permitted: false, ..Self::permitted(groups, tool, arguments) }
    }

    fn caller(&self, issuer: &TestIssuer, audience: &str, subject: &str) -> Caller {
        let over = json!({ "sub": subject, "groups": self.groups });
        Caller {
            tool: self.tool,
            is_permitted: self.is_permitted,
            arguments: self.arguments,
            token: token(issuer, audience, &over),
        }
    }
}

/// The principals of a kind. Each costs a session with Vault and a user in PostgreSQL.
const PRINCIPALS: usize = 4;
/// The tokens of a kind, so many that the edge has seldom cached a decision.
const TOKENS: usize = 24;

/// Callers of all kinds in turn.
pub(super) fn callers(issuer: &TestIssuer, audience: &str) -> Vec<Caller> {
    let numbers = (0..TOKENS).flat_map(|number| KINDS.iter().map(move |kind| (number, kind)));
    numbers
        .map(|(number, kind)| {
            let group = kind.groups.first().expect("a group");
            kind.caller(issuer, audience, &format!("{group}-{}", number % PRINCIPALS))
        })
        .collect()
}

/// An access token with these claims in addition to an engineer's.
pub(super) fn token(issuer: &TestIssuer, audience: &str, over: &Value) -> String {
    let mut claims = issuer.claims(audience);
    let object = claims.as_object_mut().expect("claims");
    object.insert("tenant".into(), json!("acme"));
    object.insert("jti".into(), json!(uuid::Uuid::new_v4()));
    // Longer than any scenario.
    object.insert("exp".into(), json!(crate::now() + 3600));
    object.extend(over.as_object().expect("claims").clone());
    issuer.sign(&issuer.header(), &claims)
}
