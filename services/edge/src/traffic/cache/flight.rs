//! Single flight: of those who want the same at the same time one fetches it, and the others wait.

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{key::Key, memory::Entry};

/// What is being fetched. None: it is still on its way.
type Outcome = Option<Landed>;

/// How a flight ended for those who wait.
#[derive(Clone, Debug)]
pub(super) enum Landed {
    /// With what they want.
    With(Entry),
    /// With nothing that others may have: an error, a question.
    Empty,
    /// Its caller has gone. Somebody else may go.
    GivenUp,
}

#[derive(Debug, Default)]
pub(super) struct Flights {
    open: Mutex<HashMap<Key, watch::Receiver<Outcome>>>,
}

/// Part in a flight.
pub(super) enum Joined {
    Lead(Flight),
    Follow(Waiting),
}

impl Flights {
    /// Joins whoever fetches this, or is the one who does.
    pub(super) fn join(self: &Arc<Self>, key: Key) -> Joined {
        match self.open().entry(key) {
            Slot::Occupied(open) => Joined::Follow(Waiting(open.get().clone())),
            Slot::Vacant(slot) => {
                let (tell, told) = watch::channel(None);
                slot.insert(told);
                Joined::Lead(Flight { key, tell, flights: Arc::clone(self) })
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Outcome>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to fetch. Dropped, it goes to one of those who wait.
#[derive(Debug)]
pub(super) struct Flight {
    key: Key,
    tell: watch::Sender<Outcome>,
    flights: Arc<Flights>,
}

impl Flight {
    /// Ends it. What has landed is to be in memory before.
    pub(super) fn land(self, landed: Landed) {
        self.tell.send_replace(Some(landed));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.open().remove(&self.key);
    }
}

/// A place in a flight.
pub(super) struct Waiting(watch::Receiver<Outcome>);

impl Waiting {
    pub(super) async fn landed(mut self) -> Landed {
        match self.0.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().unwrap_or(Landed::GivenUp),
            Err(_) => Landed::GivenUp,
        }
    }
}
