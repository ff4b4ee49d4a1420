//! Lists in pages. A cursor names the last listed item, so that items added or removed between two
//! pages neither repeat nor hide others.

use serde_json::Value;

use crate::admitted::{Cursor, PAGE_ITEMS_MAX};

/// Selects the requested page of items, in the order of their names, and the cursor of the next.
/// `None`: the request's cursor is invalid.
pub(super) fn paginate<'a, T: Clone + 'a>(
    items: impl Iterator<Item = (&'a str, &'a T)>,
    params: &Value,
) -> Option<(Vec<T>, Option<String>)> {
    let after = match Cursor::parse(params)? {
        Cursor::Start => None,
        Cursor::After(name) => Some(name),
        Cursor::InTemplate { .. } => return None,
    };
    let mut items: Vec<_> = items.collect();
    items.sort_by_key(|(name, _)| *name);
    let start = after.map_or(0, |after| items.partition_point(|(name, _)| *name <= after.as_str()));
    let page = items.get(start..).unwrap_or_default();
    let (page, rest) = page.split_at(page.len().min(PAGE_ITEMS_MAX));
    let last = page.last().filter(|_| !rest.is_empty());
    let next = last.and_then(|(name, _)| Cursor::After((*name).to_owned()).encode());
    Some((page.iter().map(|(_, item)| (*item).clone()).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cursor: Option<String>) -> Value {
        serde_json::json!({ "cursor": cursor })
    }

    #[test]
    fn pages_list_every_item_once_in_order() {
        let names: Vec<_> = (0..450).rev().map(|number| format!("tool_{number:03}")).collect();
        let items = || names.iter().map(|name| (name.as_str(), name));
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = paginate(items(), &request(cursor)).unwrap();
            assert!(page.len() <= PAGE_ITEMS_MAX);
            listed.extend(page);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(listed, sorted);
    }

    #[test]
    fn a_removed_item_does_not_end_the_list() {
        let names = ["a", "c"];
        let cursor = Cursor::After("b".to_owned()).encode();
        let (page, next) =
            paginate(names.iter().map(|name| (*name, name)), &request(cursor)).unwrap();
        assert_eq!((page, next), (vec!["c"], None));
    }

    #[test]
    fn an_invalid_cursor_is_rejected() {
        let empty: [(&str, &u8); 0] = [];
        assert!(paginate(empty.into_iter(), &request(Some("!".to_owned()))).is_none());
    }
}
