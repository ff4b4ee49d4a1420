//! Suggestions for names that could be misspelt.

/// The minimum similarity of two names for a suggestion, from 0 to 1 (Jaro-Winkler).
const ALIKE_MIN: f64 = 0.85;

/// The known name that is most similar to `name`, if similar enough.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let others = known.into_iter().filter(|known| *known != name);
    let alike = others
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known));
    let best = alike
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, known)| known)
}
