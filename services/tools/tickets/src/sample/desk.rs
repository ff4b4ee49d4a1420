//! One tenant's tickets, in memory.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::{Field, Matcher};

/// The maximum number of added articles. A restart discards them.
const ADDED_MAX: usize = 1000;
/// The owner id of an unassigned ticket.
const UNASSIGNED: u64 = 1;
/// Article ids are the ticket's id times this, plus a sequence number.
const ARTICLES_PER_TICKET: u64 = 100;
const FIRST_ADDED_ID: u64 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleFile {
    user: Vec<User>,
    ticket: Vec<Ticket>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    id: u64,
    login: String,
    firstname: String,
    lastname: String,
    email: String,
    organization: Option<String>,
    #[serde(default)]
    agent: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ticket {
    id: u64,
    title: String,
    state: String,
    priority: String,
    group: String,
    customer: String,
    owner: Option<String>,
    articles: Vec<Article>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Article {
    at: String,
    by: String,
    via: String,
    text: String,
    #[serde(default)]
    html: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    attachments: Vec<String>,
    #[serde(skip)]
    id: u64,
    #[serde(skip)]
    message_id: Option<String>,
}

/// An article to add.
#[derive(Debug, Deserialize)]
pub(super) struct NewArticle {
    pub(super) ticket_id: u64,
    body: String,
    #[serde(default)]
    internal: bool,
    message_id: Option<String>,
}

/// The tickets and users of one tenant.
#[derive(Debug)]
pub(super) struct Desk {
    users: HashMap<String, User>,
    tickets: Vec<Ticket>,
    added: usize,
}

impl Desk {
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let SampleFile { user, mut ticket } = toml::from_str(text)?;
        for ticket in &mut ticket {
            for (article, number) in ticket.articles.iter_mut().zip(1..) {
                article.id = ticket.id * ARTICLES_PER_TICKET + number;
            }
        }
        let users = user.into_iter().map(|user| (user.login.clone(), user)).collect();
        Ok(Self { users, tickets: ticket, added: 0 })
    }

    /// The tickets that match, latest change first.
    pub(super) fn find(&self, matcher: &Matcher) -> impl Iterator<Item = Value> {
        let mut found: Vec<_> = self
            .tickets
            .iter()
            .filter(|ticket| matcher.matches(&|field| self.field_texts(ticket, field)))
            .collect();
        found.sort_by_key(|ticket| std::cmp::Reverse((ticket.updated_at(), ticket.id)));
        found.into_iter().map(|ticket| self.ticket_json(ticket))
    }

    /// The texts of a ticket in a field.
    fn field_texts<'a>(&'a self, ticket: &'a Ticket, field: Field) -> Vec<&'a str> {
        let customer = self.users.get(&ticket.customer);
        let owner = ticket.owner.as_ref().and_then(|owner| self.users.get(owner));
        let login = |user: &'a User| user.login.as_str();
        let email = |user: &'a User| user.email.as_str();
        match field {
            Field::Any => {
                let articles = ticket.articles.iter().map(|article| article.text.as_str());
                let names =
                    customer.into_iter().flat_map(|user| [user.firstname.as_str(), &user.lastname]);
                articles.chain(names).chain([ticket.title.as_str()]).collect()
            }
            Field::State => vec![&ticket.state],
            Field::Priority => vec![&ticket.priority],
            Field::OwnerLogin => owner.map(login).into_iter().collect(),
            Field::OwnerEmail => owner.map(email).into_iter().collect(),
            Field::CustomerLogin => customer.map(login).into_iter().collect(),
            Field::CustomerEmail => customer.map(email).into_iter().collect(),
            Field::CreatedAt => {
                ticket.articles.first().map(|article| article.at.as_str()).into_iter().collect()
            }
            Field::UpdatedAt => vec![ticket.updated_at()],
        }
    }

    pub(super) fn ticket(&self, id: u64) -> Option<Value> {
        self.tickets.iter().find(|ticket| ticket.id == id).map(|ticket| self.ticket_json(ticket))
    }

    fn ticket_json(&self, ticket: &Ticket) -> Value {
        let id_of = |login: &str| self.users.get(login).map(|user| user.id);
        let updated_at = ticket.updated_at();
        let customer = self.users.get(&ticket.customer);
        let organization = customer.and_then(|user| user.organization.as_ref());
        json!({
            "id": ticket.id,
            "number": format!("26{:04}", ticket.id),
            "title": ticket.title,
            "state": ticket.state,
            "priority": ticket.priority,
            "group": ticket.group,
            "organization": organization,
            "customer_id": id_of(&ticket.customer),
            "customer": ticket.customer,
            "owner_id": ticket.owner.as_deref().and_then(id_of).unwrap_or(UNASSIGNED),
            "owner": ticket.owner.as_deref().unwrap_or("-"),
            "created_at": ticket.articles.first().map(|article| &article.at),
            "updated_at": updated_at,
            "close_at": (ticket.state == "closed").then_some(updated_at),
            "article_count": ticket.articles.len(),
        })
    }

    pub(super) fn articles(&self, ticket_id: u64) -> Option<Value> {
        let ticket = self.tickets.iter().find(|ticket| ticket.id == ticket_id)?;
        Some(ticket.articles.iter().map(|article| self.article_json(ticket_id, article)).collect())
    }

    fn article_json(&self, ticket_id: u64, article: &Article) -> Value {
        let user = self.users.get(&article.by);
        let from =
            user.map_or(article.by.clone(), |user| format!("{} {}", user.firstname, user.lastname));
        let attachments = article.attachments.iter().map(|name| json!({ "filename": name }));
        json!({
            "id": article.id,
            "ticket_id": ticket_id,
            "from": from,
            "sender": if user.is_none_or(|user| user.agent) { "Agent" } else { "Customer" },
            "type": article.via,
            "internal": article.internal,
            "subject": null,
            "body": article.text,
            "content_type": if article.html { "text/html" } else { "text/plain" },
            "message_id": article.message_id,
            "attachments": attachments.collect::<Vec<_>>(),
            "created_at": article.at,
        })
    }

    pub(super) fn user(&self, id: u64) -> Option<Value> {
        let user = self.users.values().find(|user| user.id == id)?;
        let User { login, firstname, lastname, email, organization, .. } = user;
        Some(json!({
            "id": id,
            "login": login,
            "firstname": firstname,
            "lastname": lastname,
            "email": email,
            "organization": organization,
        }))
    }

    /// Adds an article, unless its ticket is missing or the maximum is reached.
    pub(super) fn add(&mut self, article: NewArticle) -> Option<Value> {
        let NewArticle { ticket_id, body, internal, message_id } = article;
        let ticket = self.tickets.iter_mut().find(|ticket| ticket.id == ticket_id)?;
        if self.added == ADDED_MAX {
            return None;
        }
        ticket.articles.push(Article {
            at: format!("{:.3}", Timestamp::now()),
            by: "Drawbridge".to_owned(),
            via: "note".to_owned(),
            text: body,
            html: false,
            internal,
            attachments: Vec::new(),
            id: FIRST_ADDED_ID + self.added as u64,
            message_id,
        });
        self.added += 1;
        self.articles(ticket_id)?.as_array_mut()?.pop()
    }
}

impl Ticket {
    fn updated_at(&self) -> &str {
        self.articles.last().map_or("", |article| &article.at)
    }
}
