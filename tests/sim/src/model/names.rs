//! Names and patterns, by the words of tunnel §3.2, apart from the production matcher.

use std::cmp::Ordering;

/// Whether a pattern covers a name.
pub(super) fn covers(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let labels: Vec<&str> = pattern.split('.').collect();
    let words: Vec<&str> = name.split('.').collect();
    let apex = labels[0] == "*" && labels.len() > 1 && labels_match(&labels[1..], &words);
    apex || labels_match(&labels, &words)
}

fn labels_match(labels: &[&str], words: &[&str]) -> bool {
    match (labels.split_first(), words.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            (0..=words.len()).any(|skipped| labels_match(rest, &words[skipped..]))
        }
        (Some((label, labels)), Some((word, words))) => {
            glob(label.as_bytes(), word.as_bytes()) && labels_match(labels, words)
        }
        (_, _) => false,
    }
}

fn glob(pattern: &[u8], word: &[u8]) -> bool {
    match (pattern.split_first(), word.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=word.len()).any(|skipped| glob(rest, &word[skipped..])),
        (Some((b'?', pattern)), Some((_, word))) => glob(pattern, word),
        (Some((a, pattern)), Some((b, word))) => a == b && glob(pattern, word),
        (_, _) => false,
    }
}

/// Orders patterns by precedence: the more specific one is the smaller.
pub(super) fn precedence(a: &str, b: &str) -> Ordering {
    let mut a = a.chars().rev();
    let mut b = b.chars().rev();
    loop {
        let pair = (a.next(), b.next());
        let order = match pair {
            (None, None) => return Ordering::Equal,
            (x, y) if x == y => continue,
            (Some('*'), _) => Ordering::Greater,
            (_, Some('*')) => Ordering::Less,
            (Some('?'), _) => Ordering::Greater,
            (_, Some('?')) => Ordering::Less,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(x), Some(y)) => y.cmp(&x),
        };
        return order;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_specification() {
        for (pattern, name, expected) in [
            ("**.example.com", "example.com", true),
            ("*.example.com", "example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("foo.*.example.com", "foo.bar.example.com", true),
            ("app.f??.example.com", "app.foo.example.com", true),
            ("app.**.web.**.example.com", "app.web.example.com", true),
            ("app.*com", "app.foo.com", false),
            ("app?com", "app.com", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn order_of_the_specification() {
        let expected = [
            "example.com",
            "bar.example.com",
            "*.bar.example.com",
            "foo.example.com",
            "?.example.com",
            "*.example.com",
            "**.example.com",
            "*ample.com",
            "*.com",
        ];
        let mut shuffled = expected;
        shuffled.reverse();
        shuffled.sort_by(|a, b| precedence(a, b));
        assert_eq!(shuffled, expected);
    }
}
