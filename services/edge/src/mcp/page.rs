//! Lists in pages. A cursor names the last item that was shown, so that items that come and go between two
//! pages neither repeat nor hide others.

use serde_json::Value;

use crate::admission::{Cursor, PAGE_ITEMS_MAX};

/// The page that a request asks for, of items by name, and the cursor of the next. Nothing when the request's
/// cursor is none.
pub(super) fn of<'a, T: Clone + 'a>(
    items: impl Iterator<Item = (&'a str, &'a T)>,
    params: &Value,
) -> Option<(Vec<T>, Option<String>)> {
    let after = match Cursor::of(params)? {
        Cursor::Start => None,
        Cursor::After(name) => Some(name),
        Cursor::Listed { .. } => return None,
    };
    let mut items: Vec<_> = items.collect();
    items.sort_by_key(|(name, _)| *name);
    let start = after.map_or(0, |after| items.partition_point(|(name, _)| *name <= after.as_str()));
    let page = items.get(start..).unwrap_or_default();
    let (page, rest) = page.split_at(page.len().min(PAGE_ITEMS_MAX));
    let last = page.last().filter(|_| !rest.is_empty());
    let next = last.and_then(|(name, _)| Cursor::After((*name).to_owned()).text());
    Some((page.iter().map(|(_, item)| (*item).clone()).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cursor: Option<String>) -> Value {
        serde_json::json!({ "cursor": cursor })
    }

    #[test]
    fn pages_show_every_item_once_in_order() {
        let names: Vec<_> = (0..450).rev().map(|number| format!("tool_{number:03}")).collect();
        let items = || names.iter().map(|name| (name.as_str(), name));
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = of(items(), &request(cursor)).unwrap();
            assert!(page.len() <= PAGE_ITEMS_MAX);
            seen.extend(page);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(seen, sorted);
    }

    #[test]
    fn an_item_that_went_does_not_end_the_list() {
        let names = ["a", "c"];
        let cursor = Cursor::After("b".to_owned()).text();
        let (page, next) = of(names.iter().map(|name| (*name, name)), &request(cursor)).unwrap();
        assert_eq!((page, next), (vec!["c"], None));
    }

    #[test]
    fn a_cursor_that_is_none_is_refused() {
        let none: [(&str, &u8); 0] = [];
        assert!(of(none.into_iter(), &request(Some("!".to_owned()))).is_none());
    }
}
