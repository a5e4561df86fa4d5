//! Many nodes in few words.

/// Folds names that differ in a last number only: `compute1 compute2 compute3 head` is `compute[1-3],head`. In the
/// order of the first of each; the notation of ClusterShell and Slurm.
pub fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    // A stem with the numbers behind it; none for a name that stands for itself.
    let mut stems: Vec<(&str, Vec<u64>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for name in names {
        let (stem, number) = split(name);
        let place = match number {
            Some(_) => *places.entry(stem).or_insert(stems.len()),
            None => stems.len(),
        };
        if place == stems.len() {
            stems.push((stem, Vec::new()));
        }
        if let Some(number) = number {
            stems[place].1.push(number);
        }
    }
    let words: Vec<String> = stems
        .into_iter()
        .map(|(stem, mut numbers)| {
            numbers.sort_unstable();
            numbers.dedup();
            match numbers[..] {
                [] => stem.to_owned(),
                [one] => format!("{stem}{one}"),
                _ => format!("{stem}[{}]", ranges(&numbers)),
            }
        })
        .collect();
    words.join(",")
}

/// A name without the number at its end, and that number. `n01` has none: its zero would be lost.
fn split(name: &str) -> (&str, Option<u64>) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[stem.len()..];
    match digits.parse() {
        Ok(number) if digits == "0" || !digits.starts_with('0') => (stem, Some(number)),
        _ => (name, None),
    }
}

/// Sorted numbers as `1-3,5`.
fn ranges(numbers: &[u64]) -> String {
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let words: Vec<String> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            [one] => one.to_string(),
            [] => String::new(),
        })
        .collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn folds() {
        assert_eq!(fold([]), "");
        assert_eq!(fold(["head"]), "head");
        assert_eq!(fold(["c1"]), "c1");
        assert_eq!(fold(["c1", "head", "c3", "c2", "c7"]), "c[1-3,7],head");
        assert_eq!(fold(["n01", "n02", "n0"]), "n01,n02,n0");
        assert_eq!(fold(["a1", "b1", "a2"]), "a[1-2],b1");
        assert_eq!(fold(["x18446744073709551615"]), "x18446744073709551615");
        assert_eq!(fold(["x99999999999999999999"]), "x99999999999999999999");
    }
}
