//! The helpdesk of the caller's company, through its REST API (Zammad's), with a token got in the caller's name.

use drawbridge_sdk::{
    BlockingJobs, CallContext,
    credentials::{Credentials, Secret},
    identity::Caller,
};
use futures::future::BoxFuture;
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::DropGuard;

use self::client::{Access, Ask, Client};
use crate::{error::TicketError, filter::Filter, ticket_id::TicketId};

mod base_url;
mod client;
pub(crate) mod wire;

pub use base_url::{BaseUrl, BaseUrlError};

/// The name of the secret that holds the token.
pub(crate) const SECRET: &str = "helpdesk";
/// Asks for names beside ids.
const EXPAND: [(&str, &str); 1] = [("expand", "true")];

/// The helpdesks of all tenants. Which one is asked follows from who calls, and from nothing that a caller says.
#[derive(Debug)]
pub(crate) struct Helpdesk {
    client: Client,
    credentials: Credentials,
    url: Option<BaseUrl>,
    /// What reads and summarizes texts.
    pub(crate) jobs: BlockingJobs,
    /// Says that no call is left, and no post that has outlived its call.
    _in_use: DropGuard,
}

/// In whose name the helpdesk is asked, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) context: CallContext,
}

impl Helpdesk {
    /// The helpdesk at `url` for tenants whose secret names none. It lets `in_use` go when nobody asks any more.
    pub(crate) fn new(
        credentials: Credentials,
        url: Option<BaseUrl>,
        jobs: BlockingJobs,
        in_use: DropGuard,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self { client: Client::new()?, credentials, url, jobs, _in_use: in_use })
    }

    /// One page of the tickets that pass a filter, latest change first.
    pub(crate) async fn search(
        &self,
        call: &Call,
        filter: &Filter,
    ) -> Result<Vec<wire::Ticket>, TicketError> {
        let (page, per_page) = (filter.page.to_string(), filter.page_size.to_string());
        let query = [
            ("query", filter.query.as_str()),
            ("expand", "true"),
            ("page", &page),
            ("per_page", &per_page),
            ("sort_by", "updated_at"),
            ("order_by", "desc"),
        ];
        self.ask(call, &Ask::get("search", &["tickets", "search"], &query)).await
    }

    pub(crate) async fn ticket(
        &self,
        call: &Call,
        id: TicketId,
    ) -> Result<wire::Ticket, TicketError> {
        let path = ["tickets", &id.to_string()];
        let ticket: wire::Ticket = self.ask(call, &Ask::get("ticket", &path, &EXPAND)).await?;
        if ticket.id == id.number() { Ok(ticket) } else { Err(TicketError::Malformed) }
    }

    /// The articles of a ticket, oldest first.
    pub(crate) async fn articles(
        &self,
        call: &Call,
        id: TicketId,
    ) -> Result<Vec<wire::Article>, TicketError> {
        let path = ["ticket_articles", "by_ticket", &id.to_string()];
        let mut articles: Vec<wire::Article> =
            self.ask(call, &Ask::get("articles", &path, &EXPAND)).await?;
        articles.sort_by_key(|article| article.id);
        Ok(articles)
    }

    pub(crate) async fn user(&self, call: &Call, id: u64) -> Result<wire::User, TicketError> {
        self.ask(call, &Ask::get("user", &["users", &id.to_string()], &EXPAND)).await
    }

    /// Adds a note to a ticket. It is sent once: an error may mean that it was posted all the same, and then it is
    /// [`TicketError::Unconfirmed`].
    pub(crate) async fn post(
        &self,
        call: &Call,
        note: &wire::NewNote<'_>,
    ) -> Result<wire::Article, TicketError> {
        let body = json!(note);
        self.ask(call, &Ask::post("reply", &["ticket_articles"], &body)).await
    }

    /// Asks with the tenant's token; and once more with a token read anew when the helpdesk does not know that one: it may
    /// have been changed a moment ago.
    fn ask<'a, T: DeserializeOwned + Send + 'a>(
        &'a self,
        Call { caller, context }: &'a Call,
        ask: &'a Ask<'a>,
    ) -> BoxFuture<'a, Result<T, TicketError>> {
        Box::pin(async move {
            let secret = self.credentials.secret(caller, context, SECRET).await?;
            let access = self.access(&secret)?;
            match self.client.send(&access, context, ask).await {
                Err(TicketError::TokenRefused) => {
                    let afresh =
                        self.credentials.secret_afresh(caller, context, SECRET, &secret).await?;
                    let afresh = self.access(&afresh)?;
                    if afresh.is_same(&access) {
                        return Err(TicketError::TokenRefused);
                    }
                    self.client.send(&afresh, context, ask).await
                }
                done => done,
            }
        })
    }

    fn access(&self, secret: &Secret) -> Result<Access, TicketError> {
        let url = match secret.field("url") {
            Some(own) => own.expose_secret().parse().map_err(|_| {
                TicketError::NoHelpdesk("the URL in its secret is not one that is used")
            })?,
            None => self.url.clone().ok_or(TicketError::NoHelpdesk("no URL is known"))?,
        };
        let token = secret
            .field("token")
            .ok_or(TicketError::NoHelpdesk("its secret has no field `token`"))?;
        Access::new(url, token)
    }
}
