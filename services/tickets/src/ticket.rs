//! A ticket as callers see it.

use std::time::Instant;

use drawbridge_proto::tickets::v1::{Article, Person, Ticket};
use drawbridge_sdk::BlockingJobs;

use crate::{
    error::TicketError,
    helpdesk::{Call, Helpdesk, wire},
    text::{cut, plain},
    ticket_id::TicketId,
};

/// Articles of one ticket that are returned: the first, and the latest of the others.
const ARTICLES_MAX: usize = 50;
/// Of one article, in bytes, as the contract says. All together fit what gRPC clients take.
const ARTICLE_BYTES_MAX: usize = 20_000;
/// Of a title, a name or another short text, in bytes.
const SHORT_BYTES_MAX: usize = 1000;
const ATTACHMENTS_MAX: usize = 20;

/// A ticket with its articles.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) ticket: Ticket,
    pub(crate) articles: Vec<Article>,
    pub(crate) left_out: u32,
}

/// Reads a ticket with its articles.
pub(crate) async fn whole(
    helpdesk: &Helpdesk,
    call: &Call,
    id: TicketId,
) -> Result<Whole, TicketError> {
    let ticket = helpdesk.ticket(call, id).await?;
    let owner_id = ticket.owner_id.filter(|id| *id != wire::NOBODY);
    let (articles, customer, owner) = futures::join!(
        helpdesk.articles(call, id),
        person(helpdesk, call, ticket.customer_id),
        person(helpdesk, call, owner_id),
    );
    let (articles, left_out) = shown(&helpdesk.jobs, call.context.deadline, articles?).await?;
    let mut ticket = brief(ticket);
    ticket.customer = customer.or(ticket.customer);
    ticket.assignee = owner.or(ticket.assignee);
    Ok(Whole { ticket, articles, left_out })
}

/// Somebody by id. A token that may not read users still reads tickets, in which logins stand.
async fn person(helpdesk: &Helpdesk, call: &Call, id: Option<u64>) -> Option<Person> {
    let user = helpdesk.user(call, id?).await.ok()?;
    let names =
        [user.firstname, user.lastname].into_iter().flatten().filter(|name| !name.is_empty());
    Some(Person {
        login: short(user.login),
        name: short(Some(names.collect::<Vec<_>>().join(" "))),
        email: short(user.email),
    })
}

/// A ticket without its articles.
pub(crate) fn brief(ticket: wire::Ticket) -> Ticket {
    let person = |login: Option<String>| {
        let login = login.filter(|login| !login.is_empty() && login != "-");
        login.map(|login| Person { login: short(Some(login)), ..Person::default() })
    };
    let owner = ticket.owner.filter(|_| ticket.owner_id != Some(wire::NOBODY));
    Ticket {
        ticket_id: ticket.id.to_string(),
        number: short(ticket.number),
        title: short(ticket.title),
        state: short(ticket.state),
        priority: short(ticket.priority),
        group: short(ticket.group),
        organization: short(ticket.organization),
        customer: person(ticket.customer),
        assignee: person(owner),
        created_at: short(ticket.created_at),
        updated_at: short(ticket.updated_at),
        closed_at: short(ticket.close_at),
        article_count: ticket.article_count.unwrap_or_default(),
    }
}

/// The first article and the latest, and how many lie between. HTML is read where it may take its time.
async fn shown(
    jobs: &BlockingJobs,
    deadline: Instant,
    mut articles: Vec<wire::Article>,
) -> Result<(Vec<Article>, u32), TicketError> {
    let left_out = articles.len().saturating_sub(ARTICLES_MAX);
    if left_out > 0 {
        articles.drain(1..=left_out);
    }
    let reading = jobs.start(deadline, move |cancellation| {
        let read = |one| cancellation.check().map(|()| article(one));
        articles.into_iter().map(read).collect::<Result<_, _>>()
    });
    let articles = reading.await?.join().await??;
    Ok((articles, u32::try_from(left_out).unwrap_or(u32::MAX)))
}

fn article(article: wire::Article) -> Article {
    let whole = plain(
        article.body.as_deref().unwrap_or_default(),
        article.content_type.as_deref().unwrap_or_default(),
    );
    let (text, text_truncated) = cut(&whole, ARTICLE_BYTES_MAX);
    let names = article.attachments.into_iter().filter_map(|attachment| attachment.filename);
    Article {
        article_id: article.id.to_string(),
        author: short(article.from),
        side: short(article.sender),
        channel: short(article.kind),
        // Rather taken for internal than shown around.
        internal: article.internal.unwrap_or(true),
        subject: short(article.subject),
        text: text.to_owned(),
        text_truncated,
        created_at: short(article.created_at),
        attachments: names.take(ATTACHMENTS_MAX).map(|name| short(Some(name))).collect(),
    }
}

fn short(text: Option<String>) -> String {
    cut(&text.unwrap_or_default(), SHORT_BYTES_MAX).0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_long_ticket_the_first_article_and_the_latest_are_shown() {
        let of = |count: u64| -> Vec<wire::Article> {
            let articles = (1..=count)
                .map(|id| serde_json::from_value(serde_json::json!({ "id": id })).unwrap());
            articles.collect()
        };
        for (count, expected, left_out) in
            [(0, 0, 0), (1, 1, 0), (50, 50, 0), (51, 50, 1), (200, 50, 150)]
        {
            let deadline = Instant::now() + std::time::Duration::from_secs(60);
            let (articles, out) = shown(&BlockingJobs::new(1), deadline, of(count)).await.unwrap();
            assert_eq!((articles.len(), out), (expected, left_out));
            if count > 0 {
                assert_eq!(articles.first().unwrap().article_id, "1");
                assert_eq!(articles.last().unwrap().article_id, count.to_string());
            }
        }
    }
}
