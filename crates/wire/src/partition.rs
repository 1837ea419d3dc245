//! The set of middles that devices are divided among, as one number that both ends compare.
//!
//! A front that knows other middles than the middle does, or connects to another than it means,
//! would send devices past their record of duplicates: HELLO carries this number, and a receiver
//! refuses one that differs from its own.

/// Name of the only partition of an installation with one middle.
pub const SINGLE: &str = "0";

/// The number for the partition `mine` of the set `names`, whatever their order.
///
/// FNV-1a over the sorted names and then `mine`, each followed by 0.
///
/// ```
/// use forebay_wire::partition::map_hash;
/// assert_eq!(map_hash(["b", "a"], "a"), map_hash(["a", "b"], "a"));
/// assert_ne!(map_hash(["a", "b"], "a"), map_hash(["a", "b"], "b"));
/// ```
#[must_use]
pub fn map_hash<'a>(names: impl IntoIterator<Item = &'a str>, mine: &'a str) -> u64 {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.push(mine);
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_the_set_is_another_number() {
        let maps: [(&[&str], &str); 6] = [
            (&["0"], "0"),
            (&["0", "1"], "0"),
            (&["0", "1"], "1"),
            (&["01"], "01"),
            (&["0", "0"], "1"),
            (&["1"], "0"),
        ];
        let mut hashes: Vec<_> =
            maps.iter().map(|(names, mine)| map_hash(names.iter().copied(), mine)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), maps.len());
    }
}
