//! Items of services whose contract has not been read yet: they were down since the edge started,
//! or since the config file added them.

use drawbridge_proto::auth::v1 as auth;

use super::{Catalog, ItemKind, LockEnforcer, claims};

/// An item that a service may offer, once its contract is read.
#[derive(Debug)]
pub(crate) struct UnreadItem {
    /// What is known of it.
    pub(crate) item: auth::CatalogItem,
    /// Whether the catalog lock has it. Otherwise nothing is known but its name, which may be an
    /// invention of the caller.
    pub(crate) is_locked: bool,
}

impl Catalog {
    /// The item with this name, or for a resource with this URI, if it would be one of a service
    /// whose contract has not been read.
    ///
    /// With an enforced lock it is what the lock has, because nothing else will be offered. Without
    /// one, all names that begin with the service's namespace are its own.
    pub(crate) fn unread_item(&self, kind: ItemKind, name: &str) -> Option<UnreadItem> {
        if !self.namespaces().iter().any(|namespace| self.is_unread(namespace.as_str())) {
            return None;
        }
        let lock = self.lock_enforcer();
        // The lock names a tool as clients see it, policies and namespaces as its service does.
        let own_name = self.own_name(kind, name);
        let owner = match kind {
            _ if lock.is_some_and(LockEnforcer::is_enforced) => None,
            ItemKind::Resource => claims::owner_of_uri(self.namespaces(), name),
            _ => claims::owner_of_name(self.namespaces(), own_name),
        };
        let owned = owner.map(|service| {
            let (service, name) = (service.to_owned(), own_name.to_owned());
            let item = auth::CatalogItem { name, service, ..auth::CatalogItem::default() };
            UnreadItem { item, is_locked: false }
        });
        let locked = || {
            let mut item = lock?.locked(kind, name)?;
            if kind == ItemKind::Tool {
                own_name.clone_into(&mut item.name);
            }
            Some(UnreadItem { item, is_locked: true })
        };
        owned.or_else(locked).filter(|unread| self.is_unread(&unread.item.service))
    }

    fn is_unread(&self, service: &str) -> bool {
        self.namespaces().contains(service) && !self.is_read(service)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drawbridge_config::{ConfigText, Namespace, edge::LockMode};

    use super::*;
    use crate::catalog::{CatalogConfig, Overlay, ServiceCatalog, testdata::overlay};

    /// A catalog of these services, of which only `code` has been read.
    fn catalog(lock: Option<LockMode>, overlay: Overlay) -> Catalog {
        let lock = lock.map(|mode| {
            let text = include_str!("../../../../policies/catalog.lock");
            Arc::new(LockEnforcer::new(&ConfigText::new("catalog.lock", text), mode).unwrap())
        });
        let namespaces = ["code", "tickets", "tickets_archive"].map(namespace);
        let config = CatalogConfig {
            overlay: Arc::new(overlay),
            lock,
            namespaces: Arc::new(namespaces.into_iter().collect()),
            awaits_services: false,
        };
        Catalog::default().with_config(&config).with(namespace("code"), ServiceCatalog::default())
    }

    fn namespace(name: &str) -> Namespace {
        name.parse().unwrap()
    }

    /// The service of an unread item, and whether the lock has it.
    fn found(catalog: &Catalog, kind: ItemKind, name: &str) -> Option<(String, String, bool)> {
        let unread = catalog.unread_item(kind, name)?;
        Some((unread.item.service, unread.item.name, unread.is_locked))
    }

    #[test]
    fn without_an_enforced_lock_a_service_owns_the_names_that_begin_with_its_namespace() {
        for lock in [None, Some(LockMode::Warn)] {
            let catalog = catalog(lock, Overlay::default());
            for (kind, name, service) in [
                (ItemKind::Tool, "tickets_get", Some("tickets")),
                (ItemKind::Tool, "tickets_anything", Some("tickets")),
                (ItemKind::Prompt, "tickets_archive_find", Some("tickets_archive")),
                (ItemKind::Resource, "ticket://1", Some("tickets")),
                (ItemKind::Tool, "ticketsy", None),
                (ItemKind::Tool, "code_search", None),
                (ItemKind::Resource, "code://README.md", None),
            ] {
                let expected = service.map(|service| (service.to_owned(), name.to_owned(), false));
                assert_eq!(found(&catalog, kind, name), expected, "{lock:?} {name}");
            }
        }
    }

    #[test]
    fn with_an_enforced_lock_only_its_items_are_expected() {
        let renamed = "[[tool]]\nname = \"tickets_get\"\nrename = \"tickets_search\"\n";
        let catalog = catalog(Some(LockMode::Enforce), overlay(renamed, &["tickets"]).unwrap());
        let locked = |name: &str| Some(("tickets".to_owned(), name.to_owned(), true));
        assert_eq!(found(&catalog, ItemKind::Tool, "tickets_reply"), locked("tickets_reply"));
        let own = found(&catalog, ItemKind::Tool, "tickets_search");
        assert_eq!(own, locked("tickets_get"), "policies know its own name");
        let resource = found(&catalog, ItemKind::Resource, "ticket://1");
        assert_eq!(resource, locked("tickets_ticket"));
        let unread = catalog.unread_item(ItemKind::Tool, "tickets_reply").unwrap();
        assert_eq!(unread.item.rpc, "drawbridge.tickets.v1.TicketService/Reply");
        for (kind, name) in [
            (ItemKind::Tool, "tickets_anything"),
            (ItemKind::Prompt, "tickets_archive_find"),
            (ItemKind::Tool, "code_search"),
        ] {
            assert_eq!(found(&catalog, kind, name), None, "{name}");
        }
        let read = catalog.with(namespace("tickets"), ServiceCatalog::default());
        assert_eq!(found(&read, ItemKind::Tool, "tickets_reply"), None, "it offers no such tool");
    }
}
