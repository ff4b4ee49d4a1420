//! "Did you mean …?"

use strsim::damerau_levenshtein;

/// The name that `name` is most likely a misspelling of: one that differs in at most a third of
/// its characters, or one of which `name` is the beginning or the end.
#[must_use]
pub fn closest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let distance = |other: &str| {
        let length = name.chars().count().max(other.chars().count());
        let is_part = lower.len() >= 3 && (other.starts_with(&lower) || other.ends_with(&lower));
        let distance = damerau_levenshtein(&lower, other);
        (is_part || distance <= (length / 3).max(1)).then_some((!is_part, distance))
    };
    let candidates = names.into_iter().filter(|other| *other != name);
    candidates
        .filter_map(|other| Some((distance(other)?, other)))
        .min_by(|one, other| one.0.cmp(&other.0))
        .map(|(_, other)| other)
}

/// The names in backticks in a message of serde: the one that it rejects, and those that it
/// expects.
pub(crate) fn quoted_names(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_suggested_and_a_different_one_is_not() {
        let names = ["namespace", "urls", "timeout_ms", "redis_timeout_ms"];
        let closest = |name| closest(name, names);
        assert_eq!(closest("url"), Some("urls"));
        assert_eq!(closest("timeout"), Some("timeout_ms"));
        assert_eq!(closest("name_space"), Some("namespace"));
        assert_eq!(closest("URLs"), Some("urls"));
        assert_eq!(closest("address"), None);
    }
}
