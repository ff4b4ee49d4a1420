//! Tags: what has been made outdated, on whichever replica.
//!
//! Each tag is in a generation, which is part of the keys of what is tagged so. A write begins another: what was kept
//! before is not found any more, and what was asked for before is kept where nobody looks. Generations are in Redis, which
//! every replica reads several times a second. They are random, because Redis may forget: numbers would come again.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use drawbridge_sdk::Redis;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{rule::Tag, shared::Shared};

/// How often Redis is read.
const READ_EVERY: Duration = Duration::from_millis(200);
/// For how long what was read is believed. A write is seen everywhere within this time.
const BELIEVED_FOR: Duration = Duration::from_secs(1);
/// The generation of all tags together. No tag has this name: theirs have a slash.
const ERA: &str = "era";

/// The generations as this replica knows them.
#[derive(Debug)]
pub(super) struct Tags {
    heard: Arc<ArcSwap<Heard>>,
    words: mpsc::UnboundedSender<Word>,
}

/// What was heard last.
#[derive(Clone, Debug, Default)]
struct Heard {
    state: State,
    era: String,
    generations: HashMap<Tag, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is nobody to hear: this replica's own writes are all that is known.
    #[default]
    Alone,
    /// Redis gives no answer.
    Away,
    /// As Redis had it then.
    Read(Instant),
}

/// That these tags are outdated.
#[derive(Debug)]
struct Word {
    tags: Vec<Tag>,
    /// Until when the write may still be carried out.
    until: Option<Instant>,
    done: Option<oneshot::Sender<()>>,
}

impl Tags {
    /// The tags, and what follows those of other replicas.
    pub(super) fn new(shared: Option<Arc<Shared>>) -> (Self, Follower) {
        let state = if shared.is_some() { State::Away } else { State::Alone };
        let now = Heard { state, ..Heard::default() };
        let heard = Arc::new(ArcSwap::from_pointee(now.clone()));
        let (words, hearing) = mpsc::unbounded_channel();
        let follower = Follower {
            words: hearing,
            heard: Arc::clone(&heard),
            shared,
            now,
            unsettled: HashMap::new(),
            connecting: None,
            missed: false,
        };
        (Self { heard, words }, follower)
    }

    /// The generations that these tags are in. None: nobody knows.
    pub(super) fn generations(&self, tags: &[Tag]) -> Option<Vec<String>> {
        if tags.is_empty() {
            return Some(Vec::new());
        }
        let heard = self.heard.load();
        match heard.state {
            State::Away => return None,
            State::Read(at) if at.elapsed() >= BELIEVED_FOR => return None,
            State::Alone | State::Read(_) => {}
        }
        let generation = |tag| heard.generations.get(tag).cloned().unwrap_or_default();
        Some([heard.era.clone()].into_iter().chain(tags.iter().map(generation)).collect())
    }

    /// Begins a write that makes these tags outdated.
    pub(super) fn writing(&self, tags: Vec<Tag>, timeout: Duration) -> Writing {
        Writing { tags, timeout, words: self.words.clone() }
    }
}

/// A write under way. Dropped before its end is known, it may still be carried out.
#[derive(Debug)]
#[must_use]
pub(crate) struct Writing {
    tags: Vec<Tag>,
    timeout: Duration,
    words: mpsc::UnboundedSender<Word>,
}

impl Writing {
    /// The service is done with it, or, where nobody knows, will be within the timeout. Returns when no replica that hears Redis
    /// will answer with what was there before for longer than a moment, and this one not at all.
    pub(crate) async fn ended(mut self, is_done: bool) {
        let (done, told) = oneshot::channel();
        self.say(!is_done, Some(done));
        // It ends with the word or without: then the edge is stopping.
        let _ = told.await;
    }

    /// Nothing was sent to the service.
    pub(crate) fn never_began(mut self) {
        self.tags.clear();
    }

    fn say(&mut self, is_open: bool, done: Option<oneshot::Sender<()>>) {
        let tags = mem::take(&mut self.tags);
        let until = is_open.then(|| Instant::now() + self.timeout);
        if !tags.is_empty() {
            // Nobody hears it any more when the edge has stopped.
            let _ = self.words.send(Word { tags, until, done });
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.say(true, None);
    }
}

/// Begins generations, and reads those that other replicas begin. It alone changes what is known, so that what it has just
/// written is never undone by what it read before.
#[derive(Debug)]
pub(crate) struct Follower {
    words: mpsc::UnboundedReceiver<Word>,
    heard: Arc<ArcSwap<Heard>>,
    shared: Option<Arc<Shared>>,
    now: Heard,
    /// Tags of writes of which nobody knows whether they are still to come.
    unsettled: HashMap<Tag, Instant>,
    connecting: Option<JoinHandle<Option<Redis>>>,
    /// Whether Redis may not have all generations that were begun.
    missed: bool,
}

impl Follower {
    pub(super) async fn follow(mut self, ended: CancellationToken) {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                word = self.words.recv() => match word {
                    Some(word) => self.hear(word).await,
                    None => return,
                },
                _ = ticks.tick() => self.tick().await,
                () = ended.cancelled() => return,
            }
        }
    }

    /// Begins generations for all writes that have ended by now.
    async fn hear(&mut self, first: Word) {
        let (mut tags, mut waiting) = (HashSet::new(), Vec::new());
        let mut next = Some(first);
        while let Some(Word { tags: written, until, done }) = next {
            if let Some(until) = until {
                for tag in &written {
                    let latest = self.unsettled.entry(tag.clone()).or_insert(until);
                    *latest = until.max(*latest);
                }
            }
            tags.extend(written);
            waiting.extend(done);
            next = self.words.try_recv().ok();
        }
        self.begin(tags).await;
        for done in waiting {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }

    async fn begin(&mut self, tags: HashSet<Tag>) {
        if tags.is_empty() {
            return;
        }
        let begun: Vec<_> = tags.into_iter().map(|tag| (tag, random())).collect();
        if let Some(shared) = self.shared.clone() {
            let told = begun.iter().map(|(tag, generation)| (tag.as_str(), generation.as_str()));
            let told: Vec<_> = told.collect();
            if self.now.state == State::Away || !shared.set_tags(&told).await {
                self.lose(&shared);
            }
        }
        for (tag, _) in &begun {
            metrics::counter!("edge_cache_invalidations_total", "tag" => tag.to_string())
                .increment(1);
        }
        self.now.generations.extend(begun);
        self.publish();
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let unsettled = self.unsettled.keys().cloned().collect();
        self.begin(unsettled).await;
        self.unsettled.retain(|_, until| *until > now);
        let Some(shared) = self.shared.clone() else { return };
        if self.now.state == State::Away {
            self.return_to(&shared).await;
        } else if !self.read(&shared).await {
            self.lose(&shared);
        }
    }

    async fn read(&mut self, shared: &Shared) -> bool {
        let asked = Instant::now();
        let Some(mut read) = shared.tags().await else { return false };
        let era = match read.remove(ERA) {
            Some(era) => era,
            None => {
                if !shared.set_tag_once(ERA, &random()).await {
                    return false;
                }
                // Another replica may have been first.
                match shared.tags().await.and_then(|mut read| read.remove(ERA)) {
                    Some(era) => era,
                    None => return false,
                }
            }
        };
        let generations =
            read.into_iter().map(|(tag, generation)| (Tag::read(tag), generation)).collect();
        self.now = Heard { state: State::Read(asked), era, generations };
        self.publish();
        true
    }

    /// Redis is away. What it knows when it is back may be of any time.
    fn lose(&mut self, shared: &Shared) {
        self.missed = true;
        shared.turn_off();
        if self.now.state != State::Away {
            self.now.state = State::Away;
            self.publish();
            metrics::gauge!("edge_cache_redis_available").set(0);
            tracing::warn!(
                "Redis is away: tagged results are not kept, others by this replica alone"
            );
        }
    }

    async fn return_to(&mut self, shared: &Arc<Shared>) {
        let connection = match self.connecting.take() {
            Some(connecting) if connecting.is_finished() => connecting.await.ok().flatten(),
            Some(connecting) => return self.connecting = Some(connecting),
            None => {
                let shared = Arc::clone(shared);
                return self.connecting = Some(tokio::spawn(async move { shared.connect().await }));
            }
        };
        let Some(connection) = connection else { return };
        shared.turn_on(connection);
        // Generations that were begun meanwhile, or that Redis has lost with its memory: nothing that is tagged is found
        // again, on any replica.
        let is_known = !self.missed || shared.set_tags(&[(ERA, &random())]).await;
        if is_known && self.read(shared).await {
            self.missed = false;
            metrics::gauge!("edge_cache_redis_available").set(1);
            tracing::info!("results are kept in Redis");
        } else {
            shared.turn_off();
        }
    }

    fn publish(&self) {
        self.heard.store(Arc::new(self.now.clone()));
    }
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}
