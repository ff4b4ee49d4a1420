//! Answers that auth lets the edge repeat for a moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1 as pb;
use moka::sync::Cache;
use prost_reflect::prost::Message as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::Allowed;

/// How many answers are kept, and for how long at most, whatever auth says.
const KEPT_MAX: u64 = 20_000;
const KEPT_FOR: Duration = Duration::from_secs(10);
/// How many refused tokens are remembered, and for how long: a key that auth does not know yet may come any moment.
const REFUSED_MAX: u64 = 10_000;
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// No epoch: auth is not heard.
pub(crate) const SILENCE: u64 = 0;

/// What was asked: a digest, so that no token is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question([u8; 32]);

impl Question {
    /// The arguments are no part of it: an answer that depends on them is not kept. Whether there are any is.
    pub(super) fn new(token: &SecretString, resource: &str, operation: &pb::Operation) -> Self {
        let item = operation.item.as_ref().map(pb::CatalogItem::encode_to_vec).unwrap_or_default();
        let mut digest = Sha256::new();
        digest.update([u8::from(operation.arguments_json.is_some())]);
        digest.update(operation.kind.to_be_bytes());
        for part in [resource.as_bytes(), &item, token.expose_secret().as_bytes()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

#[derive(Clone, Debug)]
struct Answer {
    allowed: Allowed,
    until: Instant,
}

/// The answers of the epoch that auth last told of.
#[derive(Debug)]
pub(super) struct Kept {
    epoch: watch::Sender<u64>,
    answers: Cache<Question, Answer>,
    /// Tokens that are not accepted, and why.
    refused: Cache<Question, Arc<str>>,
}

impl Kept {
    /// Keeps nothing until auth is heard.
    pub(super) fn new() -> Self {
        let answers = Cache::builder().max_capacity(KEPT_MAX).time_to_live(KEPT_FOR).build();
        let refused = Cache::builder().max_capacity(REFUSED_MAX).time_to_live(REFUSED_FOR).build();
        Self { epoch: watch::Sender::new(SILENCE), answers, refused }
    }

    /// Auth is in this epoch. Answers of another are worth nothing any more.
    pub(super) fn enter(&self, epoch: u64) {
        let changed = self.epoch.send_if_modified(|now| std::mem::replace(now, epoch) != epoch);
        if changed {
            self.answers.invalidate_all();
            self.refused.invalidate_all();
        }
    }

    /// The epoch, as it changes.
    pub(super) fn epochs(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Auth is not heard: it may have changed its mind.
    pub(super) fn silence(&self) {
        self.enter(SILENCE);
    }

    pub(super) fn get(&self, question: &Question) -> Option<Allowed> {
        let epoch = *self.epoch.borrow();
        if epoch == SILENCE {
            return None;
        }
        let answer = self.answers.get(question)?;
        (answer.allowed.epoch == epoch && answer.until > Instant::now()).then_some(answer.allowed)
    }

    /// Why auth has refused this token a moment ago.
    pub(super) fn refused(&self, question: &Question) -> Option<Arc<str>> {
        self.refused.get(question)
    }

    /// Remembers that a token is not accepted.
    pub(super) fn refuse(&self, question: Question, description: &str) {
        self.refused.insert(question, description.into());
    }

    /// Keeps an answer for as long as auth says.
    pub(super) fn put(&self, question: Question, allowed: &Allowed, lasts: Duration) {
        if allowed.epoch == SILENCE || allowed.epoch != *self.epoch.borrow() {
            return;
        }
        let answer =
            Answer { allowed: allowed.clone(), until: Instant::now() + lasts.min(KEPT_FOR) };
        self.answers.insert(question, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_secs(5);

    fn question(token: &str, tool: &str) -> Question {
        let item = Some(pb::CatalogItem { name: tool.to_owned(), ..Default::default() });
        let operation =
            pb::Operation { item, arguments_json: Some("{}".into()), ..Default::default() };
        Question::new(&token.into(), "https://edge.example/mcp", &operation)
    }

    fn allowed(subject: &str, epoch: u64) -> Allowed {
        let principal = pb::Principal { subject: subject.to_owned(), ..Default::default() };
        pb::Allowed { principal: Some(principal), epoch, ..Default::default() }.into()
    }

    fn subject(kept: &Kept, question: Question) -> Option<String> {
        kept.get(&question).map(|allowed| allowed.principal.subject.clone())
    }

    #[test]
    fn an_answer_is_repeated_to_the_same_question_alone() {
        let kept = Kept::new();
        kept.enter(7);
        kept.put(question("a", "read"), &allowed("alice", 7), MOMENT);
        assert_eq!(subject(&kept, question("a", "read")).as_deref(), Some("alice"));
        assert_eq!(subject(&kept, question("b", "read")), None);
        assert_eq!(subject(&kept, question("a", "write")), None);
    }

    #[test]
    fn an_answer_does_not_outlive_its_epoch_nor_auths_voice() {
        let kept = Kept::new();
        kept.put(question("a", "read"), &allowed("alice", 7), MOMENT);
        assert_eq!(subject(&kept, question("a", "read")), None, "auth was never heard");
        kept.enter(7);
        kept.put(question("a", "read"), &allowed("alice", 6), MOMENT);
        assert_eq!(
            subject(&kept, question("a", "read")),
            None,
            "the answer is from before the epoch"
        );
        kept.put(question("a", "read"), &allowed("alice", 7), MOMENT);
        kept.silence();
        assert_eq!(subject(&kept, question("a", "read")), None, "auth is not heard");
        kept.enter(7);
        assert_eq!(subject(&kept, question("a", "read")), None, "what was dropped stays dropped");
    }

    #[test]
    fn an_answer_ends_when_auth_says() {
        let kept = Kept::new();
        kept.enter(7);
        kept.put(question("a", "read"), &allowed("alice", 7), Duration::ZERO);
        assert_eq!(subject(&kept, question("a", "read")), None);
    }
}
