//! "Did you mean …?"

/// The one of `known` that is nearest to `word`, if any is near enough to be meant; the first one of equals.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    // One slip in a short word, one more for every further four letters.
    let allowed = 1 + length.saturating_sub(1) / 4;
    known
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= allowed)
        .map(|name| (strsim::osa_distance(&word, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn near_and_far() {
        let known = ["name", "memory", "cpus", "count"];
        assert_eq!(suggest("memroy", known), Some("memory"));
        assert_eq!(suggest("MEMORY", known), Some("memory"));
        assert_eq!(suggest("cpu", known), Some("cpus"));
        assert_eq!(suggest("colour", known), None);
        assert_eq!(suggest("", known), None);
        assert_eq!(suggest("x", ["y"]), None);
        assert_eq!(suggest("file", ["size"]), None);
    }
}
