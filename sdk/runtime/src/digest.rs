/// Feeds `part` to a digest or MAC with its length in bytes before it (64 bits, big-endian), so that
/// no two lists of parts have the same digest.
pub fn length_prefixed(part: &[u8], mut update: impl FnMut(&[u8])) {
    update(&(part.len() as u64).to_be_bytes());
    update(part);
}
