//! The used fields of the helpdesk's messages. Only ids are required.

use serde::{Deserialize, Serialize};

/// The owner id of an unassigned ticket.
pub(crate) const UNASSIGNED: u64 = 1;

/// A ticket requested with `expand=true`, which adds names to ids.
#[derive(Debug, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) id: u64,
    pub(crate) number: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) priority: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) organization: Option<String>,
    pub(crate) customer_id: Option<u64>,
    pub(crate) customer: Option<String>,
    pub(crate) owner_id: Option<u64>,
    pub(crate) owner: Option<String>,
    pub(crate) created_at: Option<String>,
    pub(crate) updated_at: Option<String>,
    pub(crate) close_at: Option<String>,
    pub(crate) article_count: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Article {
    pub(crate) id: u64,
    pub(crate) from: Option<String>,
    pub(crate) sender: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) internal: Option<bool>,
    pub(crate) subject: Option<String>,
    pub(crate) body: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) created_at: Option<String>,
    #[serde(default)]
    pub(crate) attachments: Vec<Attachment>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) filename: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct User {
    pub(crate) login: Option<String>,
    pub(crate) firstname: Option<String>,
    pub(crate) lastname: Option<String>,
    pub(crate) email: Option<String>,
}

/// An article to create.
#[derive(Debug, Serialize)]
pub(crate) struct NewNote<'a> {
    pub(crate) ticket_id: u64,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) internal: bool,
    pub(crate) body: &'a str,
    pub(crate) message_id: &'a str,
}
