//! The catalog as it is now.

use std::{collections::HashSet, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Catalog, NameKind, Revision, Terms, claims::Claimant, pins::Departure};

/// How many conflicts are logged when they appear at once. A service may make as many as it likes.
const CONFLICTS_LOGGED_MAX: usize = 32;

/// The catalog of the moment, and word of its changes.
#[derive(Debug)]
pub(crate) struct Catalogs {
    current: ArcSwap<Catalog>,
    changed: watch::Sender<Revision>,
}

impl Default for Catalogs {
    /// Nothing is offered yet.
    fn default() -> Self {
        let catalog = Catalog::default();
        Self {
            changed: watch::Sender::new(catalog.revision()),
            current: ArcSwap::from_pointee(catalog),
        }
    }
}

impl Catalogs {
    /// The catalog, for a moment's use.
    pub(crate) fn load(&self) -> Guard<Arc<Catalog>> {
        self.current.load()
    }

    /// Replaces the catalog. Updates at the same time all take effect, so `change` may run more
    /// than once. Subscribers hear of it when what clients see has changed; the log, when there are
    /// new conflicts, or an item is newly otherwise than it is locked.
    pub(crate) fn update(&self, mut change: impl FnMut(&Catalog) -> Catalog) {
        let mut after = None;
        let before = self.current.rcu(|catalog| {
            let changed = Arc::new(change(catalog));
            after = Some(Arc::clone(&changed));
            changed
        });
        if let Some(after) = &after {
            report_conflicts(&before, after);
            tell_misfits(&before, after);
            tell_departures(&before, after);
        }
        self.changed.send_if_modified(|told| {
            // Read here, under the channel's lock: the last to tell tells of the latest.
            let now = self.current.load().revision();
            std::mem::replace(told, now) != now
        });
    }

    /// These terms are in effect from now on.
    pub(crate) fn set(&self, terms: &Terms) {
        self.update(|catalog| catalog.on(terms));
    }

    /// The first services have all been asked: from now on, who has a name keeps it.
    pub(crate) fn settle(&self) {
        self.update(Catalog::settled);
    }

    /// Warns of what the config file says of tools that are not there: services come and go.
    pub(crate) fn warn_of_unknown(&self) {
        for tool in self.load().unknown_tools() {
            tracing::warn!(tool, "the config file names a tool that no service offers now");
        }
    }

    /// Tells of every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }
}

fn report_conflicts(before: &Catalog, after: &Catalog) {
    let known: HashSet<_> = before.conflicts().iter().collect();
    let new: Vec<_> =
        after.conflicts().iter().filter(|conflict| !known.contains(conflict)).collect();
    for conflict in new.iter().take(CONFLICTS_LOGGED_MAX) {
        let Claimant { service, rpc } = &conflict.left_out;
        tracing::error!(service, rpc, name = conflict.name, %conflict, "two services claim a name; the second is left out");
    }
    if let Some(more) = new.len().checked_sub(CONFLICTS_LOGGED_MAX).filter(|more| *more > 0) {
        tracing::error!(more, "more services claim names of others than are logged");
    }
    for kind in NameKind::ALL {
        let count = after.conflicts().iter().filter(|conflict| conflict.kind == kind).count();
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        metrics::gauge!("edge_catalog_conflicts", "kind" => kind.label()).set(count);
    }
}

fn tell_misfits(before: &Catalog, after: &Catalog) {
    let known: HashSet<_> = before.misfits().iter().collect();
    for misfit in after.misfits().iter().filter(|misfit| !known.contains(misfit)) {
        let (tool, problem) = (&misfit.tool, &misfit.problem);
        tracing::error!(tool, problem, "a tool is not as the config file says; it is left out");
    }
}

fn tell_departures(before: &Catalog, after: &Catalog) {
    let known: HashSet<_> = before.departures().iter().collect();
    for departure in after.departures().iter().filter(|departure| !known.contains(departure)) {
        let Departure { key, change, diff, withheld } = departure;
        let (kind, name) = (key.kind.as_str(), &key.name);
        let became = if *withheld { "withheld" } else { "offered all the same" };
        tracing::warn!(kind, name, change, diff, "not as it is locked; it is {became}");
    }
    for change in ["changed", "new"] {
        let count =
            after.departures().iter().filter(|departure| departure.change == change).count();
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        metrics::gauge!("edge_catalog_departures", "change" => change).set(count);
    }
}
