//! "Did you mean": the known name that an unknown one is probably a misspelling of.

/// Names longer than this are not compared; the comparison is quadratic.
const NAME_CHARS_MAX: usize = 96;

/// The candidate nearest to `given`, where at most a third of the characters differ. The first of
/// equals wins. Upper and lower case count as equal, as do `-` and `_`.
pub(super) fn nearest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = folded(given)?;
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let Some(other) = folded(candidate) else { continue };
        let distance = edits(&given, &other);
        let is_near = distance * 3 <= given.len().max(other.len());
        if is_near && best.is_none_or(|(best_distance, _)| distance < best_distance) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn folded(name: &str) -> Option<Vec<char>> {
    let fold = |c: char| if c == '-' { '_' } else { c.to_ascii_lowercase() };
    let chars: Vec<char> = name.chars().take(NAME_CHARS_MAX + 1).map(fold).collect();
    (chars.len() <= NAME_CHARS_MAX).then_some(chars)
}

/// Optimal string alignment: insertions, deletions, replacements, and swaps of neighbours.
fn edits(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = Vec::with_capacity(right.len() + 1);
        row.push(i + 1);
        for (j, b) in right.iter().enumerate() {
            let mut cost = (above[j] + usize::from(a != b)).min(above[j + 1] + 1).min(row[j] + 1);
            let is_swap = i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b;
            if is_swap {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = above;
        above = row;
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_are_found() {
        let names = ["stale_after", "token", "token_file", "scope"];
        assert_eq!(nearest("stale_afer", names), Some("stale_after"));
        assert_eq!(nearest("satle-after", names), Some("stale_after"));
        assert_eq!(nearest("TOKNE", names), Some("token"));
        assert_eq!(nearest("tokenfile", names), Some("token_file"));
        assert_eq!(nearest("port", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn endless_names_are_not_compared() {
        assert_eq!(nearest(&"a".repeat(1 << 20), ["a"]), None);
    }

    #[test]
    fn edits_are_counted() {
        let count = |a: &str, b: &str| {
            edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("abc", ""), 3);
        assert_eq!(count("abc", "acb"), 1);
        assert_eq!(count("kitten", "sitting"), 3);
    }
}
