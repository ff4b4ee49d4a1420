//! Whose turn it is: how many calls run at once, of one caller and in one line, and who comes next.
//!
//! Callers that wait in a line take turns, one call each, so that nobody waits behind what another has sent. A
//! line that has been standing for a while is that of something that cannot keep up: whoever comes then may be made
//! to wait a short time only, because waiting longer would help nobody (controlled delay).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram};
use tokio::sync::oneshot;

/// A line that is not empty for so long is standing.
const STANDING: Duration = Duration::from_millis(100);

/// The calls that run and wait on this replica.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    callers: RandomState,
    measured: fn(&str) -> Measured,
}

/// How many at once, and how long others wait.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// Of one caller, in all lines.
    pub(super) per_caller: usize,
    /// In a line, where it has no number of its own.
    pub(super) per_line: usize,
    pub(super) lines: BTreeMap<String, usize>,
    /// Of one caller.
    pub(super) waiting_per_caller: usize,
    /// In a line.
    pub(super) waiting_per_line: usize,
    pub(super) wait: Duration,
    /// The same in a line that is standing.
    pub(super) wait_standing: Duration,
}

/// Who calls. Two of them are one with a likelihood of nothing, and then share what one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Caller(u64);

#[cfg(test)]
impl Caller {
    pub(crate) fn new(digest: u64) -> Self {
        Self(digest)
    }
}

/// A call that runs, as long as this lives.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    line: usize,
    caller: Caller,
}

/// It would be too long until it is this call's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The caller has as many calls under way as one may.
    Caller,
    /// There are as many in the line.
    Line,
}

#[derive(Debug)]
struct State {
    room: Room,
    /// Where the line of each name is.
    names: HashMap<String, usize>,
    lines: Vec<Line>,
    callers: HashMap<Caller, Calls>,
    /// The last ticket.
    ticket: u64,
}

/// Of one caller.
#[derive(Debug, Default)]
struct Calls {
    running: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Line {
    max: usize,
    running: usize,
    /// The most that ran, since somebody asked.
    peak: usize,
    waiting: usize,
    /// Since when somebody waits.
    waiting_since: Option<Instant>,
    lanes: HashMap<Caller, VecDeque<Waiter>>,
    /// The callers that have a lane, in the order of their turns.
    order: VecDeque<Caller>,
    measured: Measured,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    tell: oneshot::Sender<()>,
}

/// What is told of a line.
pub(super) struct Measured {
    pub(super) running: Gauge,
    pub(super) waiting: Gauge,
    pub(super) waited: Histogram,
    /// Because of the caller, and because of the line.
    pub(super) refused: [Counter; 2],
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Measured")
    }
}

impl Turns {
    pub(super) fn new(room: Room, measured: fn(&str) -> Measured) -> Self {
        let state = State {
            room,
            names: HashMap::new(),
            lines: Vec::new(),
            callers: HashMap::new(),
            ticket: 0,
        };
        Self { state: Mutex::new(state), callers: RandomState::new(), measured }
    }

    /// Who this is in a line.
    pub(super) fn caller(&self, who: impl Hash) -> Caller {
        Caller(self.callers.hash_one(who))
    }

    /// There is so much room from now on. What runs and waits goes on.
    pub(super) fn set(&self, room: Room) {
        let state = &mut *self.state();
        for (name, &line) in &state.names {
            state.lines[line].max = room.of(name);
        }
        state.room = room;
        state.go_on();
    }

    /// How many ran at most in one line, since this was last asked.
    pub(super) fn peak(&self) -> usize {
        let state = &mut *self.state();
        let peaks =
            state.lines.iter_mut().map(|line| std::mem::replace(&mut line.peak, line.running));
        peaks.max().unwrap_or(0)
    }

    /// Waits until a call of this caller may run in this line.
    ///
    /// # Errors
    /// When that would take too long.
    pub(super) async fn take(self: &Arc<Self>, line: &str, caller: Caller) -> Result<Turn, Busy> {
        let (waiting, patience) = {
            let state = &mut *self.state();
            let line = state.line(line, self.measured);
            if state.has_room(line, caller) {
                state.run(line, caller);
                return Ok(Turn { turns: Arc::clone(self), line, caller });
            }
            state.make_way(line, caller)?;
            let (ticket, told, patience) = state.wait(line, caller);
            (Waiting { turns: self, line, caller, ticket, told, is_over: false }, patience)
        };
        waiting.wait(patience).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.end(self.line, self.caller);
        state.go_on();
    }
}

/// A place in a line.
struct Waiting<'a> {
    turns: &'a Arc<Turns>,
    line: usize,
    caller: Caller,
    ticket: u64,
    told: oneshot::Receiver<()>,
    is_over: bool,
}

impl Waiting<'_> {
    async fn wait(mut self, patience: Duration) -> Result<Turn, Busy> {
        let began = Instant::now();
        let told = tokio::time::timeout(patience, &mut self.told).await;
        let (turns, line, caller) = (self.turns, self.line, self.caller);
        self.is_over = told.is_ok();
        drop(self);
        let state = turns.state();
        state.lines[line].measured.waited.record(began.elapsed());
        match told {
            Ok(Ok(())) => Ok(Turn { turns: Arc::clone(turns), line, caller }),
            // Another one was let in instead.
            Ok(Err(_)) => Err(state.refuse(line, Busy::Caller)),
            Err(_) if state.is_full(caller) => Err(state.refuse(line, Busy::Caller)),
            Err(_) => Err(state.refuse(line, Busy::Line)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.turns.state();
        // Whoever stops waiting in the moment in which it is told gives its turn to the next.
        if !state.leave(self.line, self.caller, self.ticket) && self.told.try_recv().is_ok() {
            state.end(self.line, self.caller);
            state.go_on();
        }
    }
}

impl Room {
    /// How many run in a line.
    fn of(&self, line: &str) -> usize {
        self.lines.get(line).copied().unwrap_or(self.per_line)
    }
}

impl State {
    fn line(&mut self, name: &str, measured: fn(&str) -> Measured) -> usize {
        if let Some(&line) = self.names.get(name) {
            return line;
        }
        self.lines.push(Line {
            max: self.room.of(name),
            running: 0,
            peak: 0,
            waiting: 0,
            waiting_since: None,
            lanes: HashMap::new(),
            order: VecDeque::new(),
            measured: measured(name),
        });
        let line = self.lines.len() - 1;
        self.names.insert(name.to_owned(), line);
        line
    }

    fn is_full(&self, caller: Caller) -> bool {
        self.callers.get(&caller).is_some_and(|calls| calls.running >= self.room.per_caller)
    }

    fn has_room(&self, line: usize, caller: Caller) -> bool {
        let line = &self.lines[line];
        line.running < line.max && !self.is_full(caller)
    }

    fn run(&mut self, line: usize, caller: Caller) {
        self.callers.entry(caller).or_default().running += 1;
        let line = &mut self.lines[line];
        line.running += 1;
        line.peak = line.peak.max(line.running);
        line.measured.running.increment(1.0);
    }

    fn end(&mut self, line: usize, caller: Caller) {
        if let Some(calls) = self.callers.get_mut(&caller) {
            calls.running -= 1;
        }
        self.forget(caller);
        let line = &mut self.lines[line];
        line.running -= 1;
        line.measured.running.decrement(1.0);
    }

    /// Nothing is kept of whoever has no call.
    fn forget(&mut self, caller: Caller) {
        if self.callers.get(&caller).is_some_and(|calls| calls.running == 0 && calls.waiting == 0) {
            self.callers.remove(&caller);
        }
    }

    /// Finds a place in a line. In a full one, whoever waits most gives way to whoever waits less.
    fn make_way(&mut self, line: usize, caller: Caller) -> Result<(), Busy> {
        let calls_waiting = self.callers.get(&caller).map_or(0, |calls| calls.waiting);
        if calls_waiting >= self.room.waiting_per_caller {
            return Err(self.refuse(line, Busy::Caller));
        }
        if self.lines[line].waiting < self.room.waiting_per_line {
            return Ok(());
        }
        let lanes = &self.lines[line].lanes;
        let own = lanes.get(&caller).map_or(0, VecDeque::len);
        let longest = lanes.iter().max_by_key(|(_, lane)| lane.len());
        match longest {
            Some((&longest, lane)) if lane.len() > own + 1 => {
                if let Some(ticket) = lane.back().map(|waiter| waiter.ticket) {
                    self.leave(line, longest, ticket);
                }
                Ok(())
            }
            _ => Err(self.refuse(line, Busy::Line)),
        }
    }

    fn wait(&mut self, line: usize, caller: Caller) -> (u64, oneshot::Receiver<()>, Duration) {
        let (tell, told) = oneshot::channel();
        self.ticket += 1;
        let ticket = self.ticket;
        self.callers.entry(caller).or_default().waiting += 1;
        let line = &mut self.lines[line];
        line.waiting += 1;
        line.measured.waiting.increment(1.0);
        let since = *line.waiting_since.get_or_insert_with(Instant::now);
        let lane = line.lanes.entry(caller).or_default();
        if lane.is_empty() {
            line.order.push_back(caller);
        }
        lane.push_back(Waiter { ticket, tell });
        let is_standing = since.elapsed() > STANDING;
        let patience = if is_standing { self.room.wait_standing } else { self.room.wait };
        (ticket, told, patience)
    }

    /// Takes a waiter out of its line. Says whether it was still there.
    fn leave(&mut self, line: usize, caller: Caller, ticket: u64) -> bool {
        let Some(lane) = self.lines[line].lanes.get_mut(&caller) else { return false };
        let Some(place) = lane.iter().position(|waiter| waiter.ticket == ticket) else {
            return false;
        };
        lane.remove(place);
        if lane.is_empty() {
            self.lines[line].lanes.remove(&caller);
            self.lines[line].order.retain(|waiting| *waiting != caller);
        }
        self.no_longer_waits(line, caller);
        true
    }

    fn no_longer_waits(&mut self, line: usize, caller: Caller) {
        if let Some(calls) = self.callers.get_mut(&caller) {
            calls.waiting -= 1;
        }
        self.forget(caller);
        let line = &mut self.lines[line];
        line.waiting -= 1;
        line.measured.waiting.decrement(1.0);
        if line.waiting == 0 {
            line.waiting_since = None;
        }
    }

    /// Lets run what now can, in every line: a caller may wait in several.
    fn go_on(&mut self) {
        for line in 0..self.lines.len() {
            while let Some((caller, waiter)) = self.next(line) {
                self.run(line, caller);
                self.no_longer_waits(line, caller);
                // Whoever waits holds its end until it has left the line.
                let _ = waiter.tell.send(());
            }
        }
    }

    /// Whose turn it is in a line.
    fn next(&mut self, line: usize) -> Option<(Caller, Waiter)> {
        let (running, max) = (self.lines[line].running, self.lines[line].max);
        if running >= max {
            return None;
        }
        let place = self.lines[line].order.iter().position(|caller| !self.is_full(*caller))?;
        let line = &mut self.lines[line];
        let caller = line.order.remove(place)?;
        let lane = line.lanes.get_mut(&caller)?;
        let waiter = lane.pop_front()?;
        if lane.is_empty() {
            line.lanes.remove(&caller);
        } else {
            line.order.push_back(caller);
        }
        Some((caller, waiter))
    }

    fn refuse(&self, line: usize, busy: Busy) -> Busy {
        self.lines[line].measured.refused[busy as usize].increment(1);
        busy
    }
}

#[cfg(test)]
mod tests;
