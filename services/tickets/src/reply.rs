//! Replies, each posted once.
//!
//! A reply has a key. Key, principal and ticket together make a mark, which the article carries as its message id
//! (RFC 5322), with a digest of the text behind it. Before a reply is posted, its mark is looked for: in memory, and where
//! that does not know it, among the ticket's articles. So what an earlier process or another replica has posted is found
//! too. What can still be posted twice, `docs/tickets.md` says.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::tickets::v1::{ReplyRequest, ReplyResponse};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Mutex, time::timeout_at};
use tracing::Instrument as _;

use crate::{
    error::TicketError,
    helpdesk::{Call, Helpdesk, wire},
    ticket_id::TicketId,
};

/// Marks that are remembered, and for how long. What is forgotten is looked for among the articles.
const MARKS_MAX: u64 = 10_000;
const MARK_FOR: Duration = Duration::from_secs(24 * 3600);
const TEXT_CHARS_MAX: usize = 20_000;
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=128;
/// What follows the `@` of a mark: a name that nobody has (RFC 2606).
const DOMAIN: &str = "drawbridge.invalid";

/// Posts replies.
#[derive(Clone, Debug)]
pub(crate) struct Replies {
    helpdesk: Arc<Helpdesk>,
    /// What is known of a mark. Who holds its lock is the one who posts.
    known: Cache<String, Arc<Mutex<Option<Posted>>>>,
}

/// An article that was posted.
#[derive(Clone, Debug)]
struct Posted {
    digest: String,
    article_id: u64,
    created_at: String,
}

/// A reply that can be posted.
#[derive(Debug)]
struct Reply {
    ticket_id: TicketId,
    text: String,
    internal: bool,
    mark: String,
    digest: String,
}

impl Reply {
    fn parse(request: ReplyRequest, principal: &str) -> Result<Self, TicketError> {
        let ReplyRequest { ticket_id, text, internal, idempotency_key } = request;
        let ticket_id: TicketId = ticket_id.parse()?;
        if text.trim().is_empty() || text.chars().count() > TEXT_CHARS_MAX {
            return Err(TicketError::argument(
                "text",
                "must have 1 to 20000 characters, and not only spaces",
            ));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if !KEY_BYTES.contains(&idempotency_key.len()) || !idempotency_key.bytes().all(allowed) {
            let problem = "must be 8 to 128 letters, digits, `.`, `_`, `:` or `-`";
            return Err(TicketError::argument("idempotency_key", problem));
        }
        let mark = digest_of(&[principal, &ticket_id.to_string(), &idempotency_key]);
        let digest = digest_of(&[if internal { "internal" } else { "public" }, &text]);
        Ok(Self { ticket_id, text, internal, mark, digest })
    }

    fn message_id(&self) -> String {
        format!("<{}.{}@{DOMAIN}>", self.mark, self.digest)
    }

    fn answer(&self, posted: &Posted, already_posted: bool) -> Result<ReplyResponse, TicketError> {
        if posted.digest != self.digest {
            return Err(TicketError::KeyReused);
        }
        Ok(ReplyResponse {
            ticket_id: self.ticket_id.to_string(),
            article_id: posted.article_id.to_string(),
            created_at: posted.created_at.clone(),
            already_posted,
        })
    }
}

/// A digest of several texts, in which none can pass for a part of another.
fn digest_of(texts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Replies {
    pub(crate) fn new(helpdesk: Arc<Helpdesk>) -> Self {
        let known = Cache::builder().max_capacity(MARKS_MAX).time_to_live(MARK_FOR).build();
        Self { helpdesk, known }
    }

    /// Posts a reply, unless it was posted before.
    pub(crate) async fn post(
        &self,
        call: Call,
        request: ReplyRequest,
    ) -> Result<ReplyResponse, TicketError> {
        let reply = Reply::parse(request, call.caller.principal().as_str())?;
        let this = self.clone();
        // A caller who goes away does not take with them the knowledge of what was posted.
        let posting =
            tokio::spawn(async move { this.post_once(&call, &reply).await }.in_current_span());
        posting.await.map_err(|error| TicketError::Failed(error.into()))?
    }

    async fn post_once(&self, call: &Call, reply: &Reply) -> Result<ReplyResponse, TicketError> {
        let known = self.known.get_with_by_ref(&reply.mark, async { Arc::default() }).await;
        let waiting = timeout_at(call.context.deadline.into(), known.lock());
        let mut known = waiting.await.map_err(|_| TicketError::DeadlinePassed)?;
        if known.is_none() {
            *known = self.find(call, reply).await?;
        }
        if let Some(posted) = &*known {
            return reply.answer(posted, true);
        }
        let message_id = reply.message_id();
        let note = wire::NewNote {
            ticket_id: reply.ticket_id.number(),
            kind: "note",
            content_type: "text/plain",
            internal: reply.internal,
            body: &reply.text,
            message_id: &message_id,
        };
        let article = self.helpdesk.post(call, &note).await?;
        tracing::info!(
            ticket_id = reply.ticket_id.number(),
            article_id = article.id,
            "a reply was posted"
        );
        let posted = known.insert(Posted {
            digest: reply.digest.clone(),
            article_id: article.id,
            created_at: article.created_at.unwrap_or_default(),
        });
        reply.answer(posted, false)
    }

    /// The article of this mark, if the ticket has one.
    async fn find(&self, call: &Call, reply: &Reply) -> Result<Option<Posted>, TicketError> {
        let articles = self.helpdesk.articles(call, reply.ticket_id).await?;
        let posted = articles.into_iter().find_map(|article| {
            let digest =
                article.message_id.as_deref()?.strip_prefix('<')?.strip_prefix(&*reply.mark)?;
            let digest = digest
                .strip_prefix('.')?
                .strip_suffix('>')?
                .strip_suffix(DOMAIN)?
                .strip_suffix('@')?;
            Some(Posted {
                digest: digest.to_owned(),
                article_id: article.id,
                created_at: article.created_at.unwrap_or_default(),
            })
        });
        Ok(posted)
    }
}
