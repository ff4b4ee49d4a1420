//! The catalog as it is now.

use std::{collections::HashSet, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Catalog, Pins, Revision, View, pins::Departure};

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
        Self { changed: watch::Sender::new(catalog.revision()), current: ArcSwap::from_pointee(catalog) }
    }
}

impl Catalogs {
    /// The catalog, for a moment's use.
    pub(crate) fn load(&self) -> Guard<Arc<Catalog>> {
        self.current.load()
    }

    /// Replaces the catalog. Updates at the same time all take effect, so `change` may run more than once.
    /// Subscribers hear of it when what clients see has changed; the log, when names clash anew, or an item is newly
    /// otherwise than it is locked.
    pub(crate) fn update(&self, mut change: impl FnMut(&Catalog) -> Catalog) {
        let mut after = None;
        let before = self.current.rcu(|catalog| {
            let changed = Arc::new(change(catalog));
            after = Some(Arc::clone(&changed));
            changed
        });
        let known: HashSet<_> = before.clashes().iter().collect();
        for clash in after.iter().flat_map(|after| after.clashes()).filter(|clash| !known.contains(clash)) {
            tracing::error!(
                name = clash.name,
                rpc = clash.left_out,
                kept = clash.kept,
                "two RPCs claim one {}; the second is left out",
                clash.kind
            );
        }
        if let Some(after) = &after {
            tell_misfits(&before, after);
            tell_departures(&before, after);
        }
        self.changed.send_if_modified(|told| {
            // Read here, under the channel's lock: the last to tell tells of the latest.
            let now = self.current.load().revision();
            std::mem::replace(told, now) != now
        });
    }

    /// Clients see it so from now on, as far as it is as these pins say.
    pub(crate) fn see_through(&self, view: &Arc<View>, pins: Option<&Arc<Pins>>) {
        self.update(|catalog| catalog.seen_through(view, pins.cloned()));
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
        let count = after.departures().iter().filter(|departure| departure.change == change).count();
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        metrics::gauge!("edge_catalog_departures", "change" => change).set(count);
    }
}
