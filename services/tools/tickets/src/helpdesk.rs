//! The helpdesk of the caller's company, through Zammad's REST API, with a token obtained on behalf
//! of the caller.

use std::sync::atomic::{AtomicU32, Ordering};

use drawbridge_sdk::{
    BlockingJobs, CallContext, Condition, Effect, ServiceBuilder, ServiceTasks,
    credentials::{Credentials, Secret},
    transaction_token::VerifiedCaller,
};
use futures::future::BoxFuture;
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use serde_json::json;

use self::client::{Access, ApiRequest, Client};
use crate::{error::TicketError, filter::Filter, ticket_id::TicketId};

mod base_url;
mod client;
pub(crate) mod wire;

pub use base_url::{BaseUrl, BaseUrlError};

/// The name of the secret that contains the token.
pub(crate) const SECRET: &str = "helpdesk";
/// After this many unanswered requests in a row the readiness says so.
const UNANSWERED_MAX: u32 = 4;
/// Requests names in addition to ids.
const EXPAND: [(&str, &str); 1] = [("expand", "true")];

/// The helpdesks of all tenants. The caller's identity alone selects the helpdesk, never the
/// request's content.
#[derive(Debug)]
pub(crate) struct Helpdesk {
    client: Client,
    credentials: Credentials,
    url: Option<BaseUrl>,
    /// The jobs that parse and summarize texts.
    pub(crate) jobs: BlockingJobs,
    /// The tasks of the service, which waits for posts that outlive their calls.
    pub(crate) tasks: ServiceTasks,
    /// Whether helpdesks answer, as far as calls have seen.
    answering: Condition,
    /// How many requests in a row were not answered.
    unanswered: AtomicU32,
}

/// The caller of the helpdesk, and the context with the deadline.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: VerifiedCaller,
    pub(crate) context: CallContext,
}

impl Helpdesk {
    /// The helpdesk at `url` serves tenants whose secret contains no URL.
    pub(crate) fn new(
        credentials: Credentials,
        url: Option<BaseUrl>,
        jobs: BlockingJobs,
        service: &ServiceBuilder,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: Client::new()?,
            credentials,
            url,
            jobs,
            tasks: service.tasks(),
            answering: service.readiness().condition("helpdesk", Effect::Degrading),
            unanswered: AtomicU32::new(0),
        })
    }

    /// One page of the tickets that match a filter, latest change first.
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
        self.request(call, &ApiRequest::get("search", &["tickets", "search"], &query)).await
    }

    pub(crate) async fn ticket(
        &self,
        call: &Call,
        id: TicketId,
    ) -> Result<wire::Ticket, TicketError> {
        let path = ["tickets", &id.to_string()];
        let ticket: wire::Ticket =
            self.request(call, &ApiRequest::get("ticket", &path, &EXPAND)).await?;
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
            self.request(call, &ApiRequest::get("articles", &path, &EXPAND)).await?;
        articles.sort_by_key(|article| article.id);
        Ok(articles)
    }

    pub(crate) async fn user(&self, call: &Call, id: u64) -> Result<wire::User, TicketError> {
        self.request(call, &ApiRequest::get("user", &["users", &id.to_string()], &EXPAND)).await
    }

    /// Adds a note to a ticket. It is sent once, without retries; if it may have been posted
    /// despite an error, that is [`TicketError::Unconfirmed`].
    pub(crate) async fn post(
        &self,
        call: &Call,
        note: &wire::NewNote<'_>,
    ) -> Result<wire::Article, TicketError> {
        let body = json!(note);
        self.request(call, &ApiRequest::post("reply", &["ticket_articles"], &body)).await
    }

    /// Sends a request with the tenant's token. If the helpdesk rejects the token, rereads the
    /// secret and retries once: the token may have been rotated.
    fn request<'a, T: DeserializeOwned + Send + 'a>(
        &'a self,
        Call { caller, context }: &'a Call,
        request: &'a ApiRequest<'a>,
    ) -> BoxFuture<'a, Result<T, TicketError>> {
        Box::pin(async move {
            let secret = self.credentials.secret(caller, context, SECRET).await?;
            let access = self.access(&secret)?;
            let sent = self.client.send(&access, context, request).await;
            self.record(sent.as_ref().map(drop));
            match sent {
                Err(TicketError::TokenRefused) => {
                    let renewed =
                        self.credentials.reread_secret(caller, context, SECRET, &secret).await?;
                    let renewed = self.access(&renewed)?;
                    if renewed.is_equal(&access) {
                        return Err(TicketError::TokenRefused);
                    }
                    self.client.send(&renewed, context, request).await
                }
                result => result,
            }
        })
    }

    /// Notes in the service's readiness whether helpdesks answer. Some failures of one may concern
    /// one company only, so they change nothing else.
    fn record(&self, sent: Result<(), &TicketError>) {
        let unanswered =
            matches!(sent, Err(TicketError::Unreachable | TicketError::Unavailable { .. }));
        if !unanswered {
            if self.unanswered.swap(0, Ordering::Relaxed) >= UNANSWERED_MAX {
                self.answering.set(Ok(()));
            }
        } else if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 == UNANSWERED_MAX {
            self.answering.set(Err("requests are not answered".to_owned()));
        }
    }

    fn access(&self, secret: &Secret) -> Result<Access, TicketError> {
        let url = match secret.field("url") {
            Some(url) => url
                .expose_secret()
                .parse()
                .map_err(|_| TicketError::NoHelpdesk("the URL in its secret is invalid"))?,
            None => self.url.clone().ok_or(TicketError::NoHelpdesk("no URL is configured"))?,
        };
        let token = secret
            .field("token")
            .ok_or(TicketError::NoHelpdesk("its secret has no field `token`"))?;
        Access::new(url, token)
    }
}
