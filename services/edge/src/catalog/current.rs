//! The current catalog.

use std::{collections::HashSet, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{
    Catalog, CatalogConfig, CatalogRevision, NameKind, claimant::Claimant,
    lock_enforcer::LockViolation,
};
use crate::metrics::{CATALOG_CONFLICTS, LOCK_VIOLATIONS};

/// How many new conflicts one update logs. A service may cause any number.
const CONFLICTS_LOGGED_MAX: usize = 32;

/// The current catalog, and a channel that publishes its changes.
#[derive(Debug)]
pub(crate) struct Catalogs {
    current: ArcSwap<Catalog>,
    changed: watch::Sender<CatalogRevision>,
}

impl Default for Catalogs {
    /// An empty catalog.
    fn default() -> Self {
        let catalog = Catalog::default();
        Self {
            changed: watch::Sender::new(catalog.revision()),
            current: ArcSwap::from_pointee(catalog),
        }
    }
}

impl Catalogs {
    /// The current catalog. Drop the guard soon.
    pub(crate) fn load(&self) -> Guard<Arc<Catalog>> {
        self.current.load()
    }

    /// Replaces the catalog. Concurrent updates all take effect, so `change` may run more than
    /// once. Notifies subscribers if clients see a change. Logs new conflicts, overlay errors and
    /// lock violations.
    pub(crate) fn update(&self, mut change: impl FnMut(&Catalog) -> Catalog) {
        let mut after = None;
        let before = self.current.rcu(|catalog| {
            let changed = Arc::new(change(catalog));
            after = Some(Arc::clone(&changed));
            changed
        });
        if let Some(after) = &after {
            log_conflicts(&before, after);
            log_overlay_errors(&before, after);
            log_lock_violations(&before, after);
        }
        self.changed.send_if_modified(|published| {
            // Loaded under the channel's lock, so that the last update publishes the latest
            // revision.
            let now = self.current.load().revision();
            std::mem::replace(published, now) != now
        });
    }

    /// Applies this configuration.
    pub(crate) fn set_config(&self, config: &CatalogConfig) {
        self.update(|catalog| catalog.with_config(config));
    }

    /// Every initial service was read once: from now on, services retain their names.
    pub(crate) fn settle(&self) {
        self.update(Catalog::settled);
    }

    /// Warns of tools in the config file that no service offers. A service may still start later.
    pub(crate) fn warn_of_unknown_tools(&self) {
        for tool in self.load().unknown_tools() {
            tracing::warn!(tool, "the config file names a tool that no service offers");
        }
    }

    /// Receives the revision after each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<CatalogRevision> {
        self.changed.subscribe()
    }
}

fn log_conflicts(before: &Catalog, after: &Catalog) {
    let known: HashSet<_> = before.conflicts().iter().collect();
    let new: Vec<_> =
        after.conflicts().iter().filter(|conflict| !known.contains(conflict)).collect();
    for conflict in new.iter().take(CONFLICTS_LOGGED_MAX) {
        let Claimant { service, rpc } = &conflict.left_out;
        tracing::error!(
            service,
            rpc,
            name = conflict.name,
            %conflict,
            "two services claim a name; the second is left out"
        );
    }
    if let Some(more) = new.len().checked_sub(CONFLICTS_LOGGED_MAX).filter(|more| *more > 0) {
        tracing::error!(more, "further name conflicts are not logged");
    }
    for kind in NameKind::ALL {
        let count = after.conflicts().iter().filter(|conflict| conflict.kind == kind).count();
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        CATALOG_CONFLICTS.with([kind.label().into()]).set(count);
    }
}

fn log_overlay_errors(before: &Catalog, after: &Catalog) {
    let known: HashSet<_> = before.overlay_errors().iter().collect();
    for error in after.overlay_errors().iter().filter(|error| !known.contains(error)) {
        let (tool, problem) = (&error.tool, &error.problem);
        tracing::error!(
            tool,
            problem,
            "a tool does not fit its overlay in the config file; it is left out"
        );
    }
}

fn log_lock_violations(before: &Catalog, after: &Catalog) {
    let known: HashSet<_> = before.lock_violations().iter().collect();
    for violation in after.lock_violations().iter().filter(|violation| !known.contains(violation)) {
        let LockViolation { key, change, diff, is_withheld } = violation;
        let (kind, name) = (key.kind.as_str(), &key.name);
        let action = if *is_withheld { "withheld" } else { "offered with a flag" };
        tracing::warn!(
            kind,
            name,
            change,
            diff,
            "an item violates the catalog lock; it is {action}"
        );
    }
    for change in ["changed", "new"] {
        let count =
            after.lock_violations().iter().filter(|violation| violation.change == change).count();
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        LOCK_VIOLATIONS.with([change.into()]).set(count);
    }
}
