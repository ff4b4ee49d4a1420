//! Tags: what writes have invalidated, on any replica.
//!
//! Each tag has a generation, which is part of the cache keys of results with that tag. A write
//! begins a new generation: no later lookup finds a result stored before, nor one whose call began
//! before. Generations are in Redis, which every replica reads several times a second. They are
//! random: Redis may lose its data, and counted ones would repeat.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use drawbridge_runtime::Redis;
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{rule::CacheTag, shared::RedisStore};
use crate::metrics::{CACHE_INVALIDATIONS, CACHE_REDIS_AVAILABLE};

/// How often Redis is read.
const READ_EVERY: Duration = Duration::from_millis(200);
/// How long generations stay valid after they were read. Every replica sees a write within this
/// time.
const VALID_FOR: Duration = Duration::from_secs(1);
/// The generation of all tags together. No tag has this name: tag names contain a slash.
const ERA: &str = "era";

/// The generations as this replica knows them.
#[derive(Debug)]
pub(super) struct Tags {
    known: Arc<ArcSwap<KnownGenerations>>,
    invalidations: mpsc::UnboundedSender<Invalidation>,
}

/// The generations that the watcher published last.
#[derive(Clone, Debug, Default)]
struct KnownGenerations {
    state: SyncState,
    era: String,
    generations: HashMap<CacheTag, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SyncState {
    /// Without Redis: this replica's own writes are all that count.
    #[default]
    LocalOnly,
    /// Redis gives no answer.
    Unavailable,
    /// Read from Redis at this time.
    ReadAt(Instant),
}

/// A request to begin new generations of these tags.
#[derive(Debug)]
struct Invalidation {
    tags: Vec<CacheTag>,
    /// Where the write may still be carried out: until when.
    pending_until: Option<Instant>,
    done: Option<oneshot::Sender<()>>,
}

impl Tags {
    /// The tags, and the watcher that keeps them up to date.
    pub(super) fn new(shared: Option<Arc<RedisStore>>) -> (Self, TagWatcher) {
        let state = if shared.is_some() { SyncState::Unavailable } else { SyncState::LocalOnly };
        let current = KnownGenerations { state, ..KnownGenerations::default() };
        let known = Arc::new(ArcSwap::from_pointee(current.clone()));
        let (invalidations, receiver) = mpsc::unbounded_channel();
        let watcher = TagWatcher {
            invalidations: receiver,
            published: Arc::clone(&known),
            shared,
            current,
            pending_writes: HashMap::new(),
            connecting: None,
            has_unsaved: false,
        };
        (Self { known, invalidations }, watcher)
    }

    /// The current generations of these tags. `None`: unknown, because Redis gives no answer.
    pub(super) fn generations(&self, tags: &[CacheTag]) -> Option<Vec<String>> {
        if tags.is_empty() {
            return Some(Vec::new());
        }
        let known = self.known.load();
        match known.state {
            SyncState::Unavailable => return None,
            SyncState::ReadAt(at) if at.elapsed() >= VALID_FOR => return None,
            SyncState::LocalOnly | SyncState::ReadAt(_) => {}
        }
        let generation = |tag| known.generations.get(tag).cloned().unwrap_or_default();
        Some([known.era.clone()].into_iter().chain(tags.iter().map(generation)).collect())
    }

    /// Begins a write that invalidates these tags.
    pub(super) fn begin_write(&self, tags: Vec<CacheTag>, timeout: Duration) -> PendingWrite {
        PendingWrite { tags, timeout, invalidations: self.invalidations.clone() }
    }
}

/// A write under way. If it is dropped, the service may still carry it out within the timeout.
#[derive(Debug)]
#[must_use]
pub(crate) struct PendingWrite {
    tags: Vec<CacheTag>,
    timeout: Duration,
    invalidations: mpsc::UnboundedSender<Invalidation>,
}

impl PendingWrite {
    /// Ends the write. Without `is_done`, the service may still carry it out within the timeout.
    ///
    /// Returns when this replica no longer serves what was cached before, and no replica connected
    /// to Redis will for more than a moment.
    pub(crate) async fn end(mut self, is_done: bool) {
        let (done, published) = oneshot::channel();
        self.invalidate(!is_done, Some(done));
        // An error means that the edge is stopping.
        let _ = published.await;
    }

    /// Ends a write that was never sent to the service.
    pub(crate) fn cancel(mut self) {
        self.tags.clear();
    }

    fn invalidate(&mut self, is_pending: bool, done: Option<oneshot::Sender<()>>) {
        let tags = mem::take(&mut self.tags);
        let pending_until = is_pending.then(|| Instant::now() + self.timeout);
        if !tags.is_empty() {
            // Fails when the edge has stopped.
            let _ = self.invalidations.send(Invalidation { tags, pending_until, done });
        }
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        self.invalidate(true, None);
    }
}

/// Begins generations, and reads those that other replicas begin.
///
/// INVARIANT: it is the only writer of the known generations, so a read never reverts a newer
/// write.
#[derive(Debug)]
pub(crate) struct TagWatcher {
    invalidations: mpsc::UnboundedReceiver<Invalidation>,
    published: Arc<ArcSwap<KnownGenerations>>,
    shared: Option<Arc<RedisStore>>,
    current: KnownGenerations,
    /// Tags of writes that may still be carried out, and until when.
    pending_writes: HashMap<CacheTag, Instant>,
    connecting: Option<AbortOnDropHandle<Option<Redis>>>,
    /// Whether Redis may lack generations that this replica has begun.
    has_unsaved: bool,
}

impl TagWatcher {
    pub(super) async fn run(mut self, ended: CancellationToken) {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                invalidation = self.invalidations.recv() => match invalidation {
                    Some(invalidation) => self.invalidate(invalidation).await,
                    None => return,
                },
                _ = ticks.tick() => self.tick().await,
                () = ended.cancelled() => return,
            }
        }
    }

    /// Begins generations for all invalidations queued by now.
    async fn invalidate(&mut self, first: Invalidation) {
        let (mut tags, mut waiters) = (HashSet::new(), Vec::new());
        let mut next = Some(first);
        while let Some(Invalidation { tags: written, pending_until, done }) = next {
            if let Some(until) = pending_until {
                for tag in &written {
                    let latest = self.pending_writes.entry(tag.clone()).or_insert(until);
                    *latest = until.max(*latest);
                }
            }
            tags.extend(written);
            waiters.extend(done);
            next = self.invalidations.try_recv().ok();
        }
        self.begin(tags).await;
        for done in waiters {
            // Fails when the caller no longer waits.
            let _ = done.send(());
        }
    }

    async fn begin(&mut self, tags: HashSet<CacheTag>) {
        if tags.is_empty() {
            return;
        }
        let begun: Vec<_> = tags.into_iter().map(|tag| (tag, random())).collect();
        if let Some(shared) = self.shared.clone() {
            let generations: Vec<_> =
                begun.iter().map(|(tag, generation)| (tag.as_str(), generation.as_str())).collect();
            let is_available = self.current.state != SyncState::Unavailable;
            if !is_available || !shared.set_tags(&generations).await {
                self.disconnect(&shared);
            }
        }
        for (tag, _) in &begun {
            CACHE_INVALIDATIONS.with([tag.to_string().into()]).increment(1);
        }
        self.current.generations.extend(begun);
        self.publish();
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let pending = self.pending_writes.keys().cloned().collect();
        self.begin(pending).await;
        self.pending_writes.retain(|_, until| *until > now);
        let Some(shared) = self.shared.clone() else { return };
        if self.current.state == SyncState::Unavailable {
            self.reconnect(&shared).await;
        } else if !self.read(&shared).await {
            self.disconnect(&shared);
        }
    }

    async fn read(&mut self, shared: &RedisStore) -> bool {
        let read_at = Instant::now();
        let Some(mut read) = shared.tags().await else { return false };
        let era = match read.remove(ERA) {
            Some(era) => era,
            None => {
                if !shared.set_tag_once(ERA, &random()).await {
                    return false;
                }
                // Another replica may have stored one first.
                match shared.tags().await.and_then(|mut read| read.remove(ERA)) {
                    Some(era) => era,
                    None => return false,
                }
            }
        };
        let generations = read
            .into_iter()
            .map(|(tag, generation)| (CacheTag::from_stored(tag), generation))
            .collect();
        self.current = KnownGenerations { state: SyncState::ReadAt(read_at), era, generations };
        self.publish();
        true
    }

    /// Redis is unavailable. When it is back, its data may be of any age.
    fn disconnect(&mut self, shared: &RedisStore) {
        self.has_unsaved = true;
        shared.turn_off();
        if self.current.state != SyncState::Unavailable {
            self.current.state = SyncState::Unavailable;
            self.publish();
            CACHE_REDIS_AVAILABLE.get().set(0);
            tracing::warn!(
                "Redis is unavailable: tagged results are not cached, others on this replica only"
            );
        }
    }

    async fn reconnect(&mut self, shared: &Arc<RedisStore>) {
        let connection = match self.connecting.take() {
            Some(connecting) if connecting.is_finished() => connecting.await.ok().flatten(),
            Some(connecting) => return self.connecting = Some(connecting),
            None => {
                let shared = Arc::clone(shared);
                let connecting = tokio::spawn(async move { shared.connect().await });
                return self.connecting = Some(AbortOnDropHandle::new(connecting));
            }
        };
        let Some(connection) = connection else { return };
        shared.turn_on(connection);
        // Redis may lack generations: those begun meanwhile, or those it has lost. A new era makes
        // every replica miss all tagged results.
        let is_saved = !self.has_unsaved || shared.set_tags(&[(ERA, &random())]).await;
        if is_saved && self.read(shared).await {
            self.has_unsaved = false;
            CACHE_REDIS_AVAILABLE.get().set(1);
            tracing::info!("Redis is available: results are cached there");
        } else {
            shared.turn_off();
        }
    }

    fn publish(&self) {
        self.published.store(Arc::new(self.current.clone()));
    }
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}
