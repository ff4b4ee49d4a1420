//! Posts each reply once.
//!
//! The idempotency key, the principal and the ticket form a marker. The article carries it in its
//! message id (RFC 5322), followed by a digest of the text. Before posting a reply, the service
//! looks for its marker in memory and then among the ticket's articles, so it also finds replies of
//! earlier processes and other replicas. `docs/reference/services/tickets.md` names the cases in
//! which a reply can still be posted twice.

use std::{sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use drawbridge_proto::tickets::v1::{ReplyRequest, ReplyResponse};
use drawbridge_sdk::length_prefixed;
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Mutex, time::timeout_at};
use tracing::Instrument as _;

use crate::{
    error::TicketError,
    helpdesk::{Call, Helpdesk, wire},
    ticket_id::TicketId,
};

/// Size and lifetime of the marker cache. Evicted markers are looked up among the articles.
const MARKERS_MAX: u64 = 10_000;
const MARKER_TTL: Duration = Duration::from_secs(24 * 3600);
const TEXT_CHARS_MAX: usize = 20_000;
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=128;
/// The domain of a message id: a reserved name (RFC 2606).
const DOMAIN: &str = "drawbridge.invalid";

/// Posts replies.
#[derive(Clone, Debug)]
pub(crate) struct Replies {
    helpdesk: Arc<Helpdesk>,
    /// The posted article by marker. The holder of an entry's lock posts.
    posted: Cache<String, Arc<Mutex<Option<Posted>>>>,
}

/// An article that was posted.
#[derive(Clone, Debug)]
struct Posted {
    digest: String,
    article_id: u64,
    created_at: String,
}

/// A validated reply.
#[derive(Debug)]
struct Reply {
    ticket_id: TicketId,
    text: String,
    internal: bool,
    marker: String,
    digest: String,
}

impl Reply {
    fn parse(request: ReplyRequest, principal: &str) -> Result<Self, TicketError> {
        let ReplyRequest { ticket_id, text, internal, idempotency_key } = request;
        let ticket_id: TicketId = ticket_id.parse()?;
        if text.trim().is_empty() || text.chars().count() > TEXT_CHARS_MAX {
            return Err(TicketError::argument(
                "text",
                "must have 1 to 20000 characters, not only white space",
            ));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if !KEY_BYTES.contains(&idempotency_key.len()) || !idempotency_key.bytes().all(allowed) {
            let problem = "must be 8 to 128 letters, digits, `.`, `_`, `:` or `-`";
            return Err(TicketError::argument("idempotency_key", problem));
        }
        let marker = digest_texts(&[principal, &ticket_id.to_string(), &idempotency_key]);
        let digest = digest_texts(&[if internal { "internal" } else { "public" }, &text]);
        Ok(Self { ticket_id, text, internal, marker, digest })
    }

    fn message_id(&self) -> String {
        format!("<{}.{}@{DOMAIN}>", self.marker, self.digest)
    }

    fn response(
        &self,
        posted: &Posted,
        already_posted: bool,
    ) -> Result<ReplyResponse, TicketError> {
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

/// A digest of length-prefixed texts, so that no two lists of texts collide.
fn digest_texts(texts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        length_prefixed(text.as_bytes(), |bytes| digest.update(bytes));
    }
    HEXLOWER.encode(&digest.finalize())
}

impl Replies {
    pub(crate) fn new(helpdesk: Arc<Helpdesk>) -> Self {
        let posted = Cache::builder().max_capacity(MARKERS_MAX).time_to_live(MARKER_TTL).build();
        Self { helpdesk, posted }
    }

    /// Posts a reply, unless it was posted before.
    pub(crate) async fn post(
        &self,
        call: Call,
        request: ReplyRequest,
    ) -> Result<ReplyResponse, TicketError> {
        let reply = Reply::parse(request, call.caller.principal().as_str())?;
        let this = self.clone();
        // In a task: cancelling the call must not lose the record of what was posted.
        let in_flight = self.helpdesk.tasks.call_in_flight();
        let posting = async move {
            let _in_flight = in_flight;
            this.post_once(&call, &reply).await
        };
        let post_task = tokio::spawn(posting.in_current_span());
        post_task.await.map_err(|error| TicketError::Failed(error.into()))?
    }

    async fn post_once(&self, call: &Call, reply: &Reply) -> Result<ReplyResponse, TicketError> {
        let entry = self.posted.get_with_by_ref(&reply.marker, async { Arc::default() }).await;
        let lock = timeout_at(call.context.deadline.into(), entry.lock());
        let mut entry = lock.await.map_err(|_| TicketError::DeadlinePassed)?;
        if entry.is_none() {
            *entry = self.find(call, reply).await?;
        }
        if let Some(posted) = &*entry {
            return reply.response(posted, true);
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
        let posted = entry.insert(Posted {
            digest: reply.digest.clone(),
            article_id: article.id,
            created_at: article.created_at.unwrap_or_default(),
        });
        reply.response(posted, false)
    }

    /// The ticket's article with this marker, if any.
    async fn find(&self, call: &Call, reply: &Reply) -> Result<Option<Posted>, TicketError> {
        let articles = self.helpdesk.articles(call, reply.ticket_id).await?;
        let posted = articles.into_iter().find_map(|article| {
            let digest =
                article.message_id.as_deref()?.strip_prefix('<')?.strip_prefix(&*reply.marker)?;
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
