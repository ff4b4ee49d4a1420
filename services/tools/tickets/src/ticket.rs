//! Converts tickets of the helpdesk to those of the contract.

use std::time::Instant;

use drawbridge_proto::tickets::v1::{Article, Person, Ticket};
use drawbridge_sdk::BlockingJobs;

use crate::{
    error::TicketError,
    helpdesk::{Call, Helpdesk, wire},
    text::{to_plain_text, truncate},
    ticket_id::TicketId,
};

/// The maximum number of returned articles: the first, and the latest others.
const ARTICLES_MAX: usize = 50;
/// The maximum text of an article, in bytes, as the contract states. All together fit a gRPC
/// message.
const ARTICLE_BYTES_MAX: usize = 20_000;
/// The maximum length of a title, name or other short text, in bytes.
const SHORT_BYTES_MAX: usize = 1000;
const ATTACHMENTS_MAX: usize = 20;

/// A ticket with its articles.
#[derive(Debug)]
pub(crate) struct TicketWithArticles {
    pub(crate) ticket: Ticket,
    pub(crate) articles: Vec<Article>,
    pub(crate) left_out: u32,
}

/// Reads a ticket with its articles.
pub(crate) async fn read_ticket(
    helpdesk: &Helpdesk,
    call: &Call,
    id: TicketId,
) -> Result<TicketWithArticles, TicketError> {
    let ticket = helpdesk.ticket(call, id).await?;
    let owner_id = ticket.owner_id.filter(|id| *id != wire::UNASSIGNED);
    let (articles, customer, owner) = futures::join!(
        helpdesk.articles(call, id),
        person(helpdesk, call, ticket.customer_id),
        person(helpdesk, call, owner_id),
    );
    let (articles, left_out) =
        select_articles(&helpdesk.jobs, call.context.deadline, articles?).await?;
    let mut ticket = ticket_summary(ticket);
    ticket.customer = customer.or(ticket.customer);
    ticket.assignee = owner.or(ticket.assignee);
    Ok(TicketWithArticles { ticket, articles, left_out })
}

/// A person by id. None if the token may not read users; the ticket still has the login.
async fn person(helpdesk: &Helpdesk, call: &Call, id: Option<u64>) -> Option<Person> {
    let user = helpdesk.user(call, id?).await.ok()?;
    let names =
        [user.firstname, user.lastname].into_iter().flatten().filter(|name| !name.is_empty());
    Some(Person {
        login: truncate_field(user.login),
        name: truncate_field(Some(names.collect::<Vec<_>>().join(" "))),
        email: truncate_field(user.email),
    })
}

/// A ticket without its articles.
pub(crate) fn ticket_summary(ticket: wire::Ticket) -> Ticket {
    let person = |login: Option<String>| {
        let login = login.filter(|login| !login.is_empty() && login != "-");
        login.map(|login| Person { login: truncate_field(Some(login)), ..Person::default() })
    };
    let owner = ticket.owner.filter(|_| ticket.owner_id != Some(wire::UNASSIGNED));
    Ticket {
        ticket_id: ticket.id.to_string(),
        number: truncate_field(ticket.number),
        title: truncate_field(ticket.title),
        state: truncate_field(ticket.state),
        priority: truncate_field(ticket.priority),
        group: truncate_field(ticket.group),
        organization: truncate_field(ticket.organization),
        customer: person(ticket.customer),
        assignee: person(owner),
        created_at: truncate_field(ticket.created_at),
        updated_at: truncate_field(ticket.updated_at),
        closed_at: truncate_field(ticket.close_at),
        article_count: ticket.article_count.unwrap_or_default(),
    }
}

/// The first article and the latest ones, and the number of omitted ones. HTML is converted on a
/// blocking thread.
async fn select_articles(
    jobs: &BlockingJobs,
    deadline: Instant,
    mut articles: Vec<wire::Article>,
) -> Result<(Vec<Article>, u32), TicketError> {
    let left_out = articles.len().saturating_sub(ARTICLES_MAX);
    if left_out > 0 {
        articles.drain(1..=left_out);
    }
    let convert_job = jobs.start(deadline, move |cancellation| {
        let read = |one| cancellation.check().map(|()| article(one));
        articles.into_iter().map(read).collect::<Result<_, _>>()
    });
    let articles = convert_job.await?.join().await??;
    Ok((articles, u32::try_from(left_out).unwrap_or(u32::MAX)))
}

fn article(article: wire::Article) -> Article {
    let read_ticket = to_plain_text(
        article.body.as_deref().unwrap_or_default(),
        article.content_type.as_deref().unwrap_or_default(),
    );
    let (text, text_truncated) = truncate(&read_ticket, ARTICLE_BYTES_MAX);
    let names = article.attachments.into_iter().filter_map(|attachment| attachment.filename);
    Article {
        article_id: article.id.to_string(),
        author: truncate_field(article.from),
        side: truncate_field(article.sender),
        channel: truncate_field(article.kind),
        // If unknown, treat it as internal.
        internal: article.internal.unwrap_or(true),
        subject: truncate_field(article.subject),
        text: text.to_owned(),
        text_truncated,
        created_at: truncate_field(article.created_at),
        attachments: names.take(ATTACHMENTS_MAX).map(|name| truncate_field(Some(name))).collect(),
    }
}

fn truncate_field(text: Option<String>) -> String {
    truncate(&text.unwrap_or_default(), SHORT_BYTES_MAX).0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_ticket_returns_the_first_and_the_latest_articles() {
        let articles_of = |count: u64| -> Vec<wire::Article> {
            let articles = (1..=count)
                .map(|id| serde_json::from_value(serde_json::json!({ "id": id })).unwrap());
            articles.collect()
        };
        for (count, expected, left_out) in
            [(0, 0, 0), (1, 1, 0), (50, 50, 0), (51, 50, 1), (200, 50, 150)]
        {
            let deadline = Instant::now() + std::time::Duration::from_secs(60);
            let (articles, out) =
                select_articles(&BlockingJobs::new(1), deadline, articles_of(count)).await.unwrap();
            assert_eq!((articles.len(), out), (expected, left_out));
            if count > 0 {
                assert_eq!(articles.first().unwrap().article_id, "1");
                assert_eq!(articles.last().unwrap().article_id, count.to_string());
            }
        }
    }
}
