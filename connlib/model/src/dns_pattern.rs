//! Patterns of DNS resources: which names a resource covers, and which of two patterns is the more specific one
//! (tunnel specification §3.2).
//!
//! A pattern is matched label by label, ignoring ASCII case:
//!
//! | token | matches |
//! |---|---|
//! | `?` | one character |
//! | `*` | any number of characters of one label |
//! | `**` as a whole label | any number of labels, also none |
//! | leading `*.` | one label or none |
//! | `[abc]`, `[a-z]`, `[!a-z]` | one character of (or not of) the class |
//!
//! Matching never allocates and never backtracks further than the last star, so its time is at most the product of
//! both lengths whatever a pattern looks like. A pattern starts with a comparison of its literal end, which rejects
//! nearly all names of a large list at the cost of one comparison.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::DomainName;

mod glob;

use glob::LabelGlob;

/// Longest accepted pattern in characters: room for a name of full length with some character classes.
pub const MAX_PATTERN_LEN: usize = 512;

/// A compiled pattern.
///
/// The order (`Ord`) is the order of precedence: the more specific pattern is the smaller one, so that the first match
/// in a sorted list is the right one.
#[derive(Clone)]
pub struct DnsPattern {
    text: Box<str>,
    labels: Box<[LabelPattern]>,
    literal_end: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelPattern {
    /// `**`
    AnyLabels,
    Glob(LabelGlob),
}

/// Why text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing between two dots, or nothing at all.
    #[error("pattern has an empty label")]
    EmptyLabel,
    /// More than [`MAX_PATTERN_LEN`] characters.
    #[error("pattern has {0} characters; {MAX_PATTERN_LEN} are allowed")]
    TooLong(usize),
    /// A character that no domain name has.
    #[error("pattern contains {0:?}; write international names in their ASCII form (xn--…)")]
    BadCharacter(char),
    /// `**` beside other characters, or more than two stars in a row.
    #[error("`**` must be a whole label, as in `**.example.com`")]
    MisplacedDoubleStar,
    /// `[` without `]`.
    #[error("`[` without a closing `]` in the same label")]
    UnbalancedClass,
}

impl DnsPattern {
    /// Compiles `text`; one trailing dot is taken off.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_LEN {
            return Err(PatternError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(PatternError::BadCharacter(bad));
        }
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let labels = text
            .split('.')
            .map(LabelPattern::parse)
            .collect::<Result<Box<[_]>, _>>()?;
        let literal_end = literal_end(&text).into();
        Ok(Self {
            text: text.into(),
            labels,
            literal_end,
        })
    }

    /// Whether the pattern covers `name`. The root is covered by no pattern.
    pub fn matches(&self, name: &DomainName) -> bool {
        let name = name.as_str();
        if name.is_empty() || !name.ends_with(&*self.literal_end) {
            return false;
        }
        matches_labels(&self.labels, name)
            || self
                .labels_below_leading_star()
                .is_some_and(|rest| matches_labels(rest, name))
    }

    /// The pattern's text: lower case, no trailing dot.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern covers exactly one name, its text.
    pub fn is_literal(&self) -> bool {
        self.literal_end.len() == self.text.len()
    }

    /// The labels that every covered name ends with; empty if there are none.
    pub fn literal_labels(&self) -> &str {
        let start = self.text.len() - self.literal_end.len();
        if start == 0 || self.text[..start].ends_with('.') {
            return &self.literal_end;
        }
        // The first of them is only the end of a label.
        self.literal_end
            .split_once('.')
            .map_or("", |(_, whole)| whole)
    }

    /// `*.x.y` also covers `x.y`: what is behind the star.
    fn labels_below_leading_star(&self) -> Option<&[LabelPattern]> {
        let (LabelPattern::Glob(first), rest) = self.labels.split_first()? else {
            return None;
        };
        (first.is_star() && !rest.is_empty()).then_some(rest)
    }
}

impl LabelPattern {
    fn parse(label: &str) -> Result<Self, PatternError> {
        if label == "**" {
            return Ok(Self::AnyLabels);
        }
        LabelGlob::parse(label).map(Self::Glob)
    }
}

/// What every covered name ends with. A dot at its start is left out, because the labels in front of it may be none.
fn literal_end(text: &str) -> &str {
    let start = text.rfind(['*', '?', ']']).map_or(0, |last| last + 1);
    let end = &text[start..];
    end.strip_prefix('.').unwrap_or(end)
}

/// Whether `labels` match all of `name` (empty: no labels left).
fn matches_labels(mut labels: &[LabelPattern], mut name: &str) -> bool {
    // Where to resume when a label does not match: behind the last `**`, with one more label given to it.
    let mut resume: Option<(&[LabelPattern], &str)> = None;
    loop {
        match labels.split_first() {
            Some((LabelPattern::AnyLabels, rest)) => {
                labels = rest;
                resume = Some((rest, name));
                continue;
            }
            Some((LabelPattern::Glob(glob), rest)) if !name.is_empty() => {
                let (label, name_rest) = split_label(name);
                if glob.matches(label) {
                    labels = rest;
                    name = name_rest;
                    continue;
                }
            }
            None if name.is_empty() => return true,
            Some(_) | None => {}
        }
        match resume {
            Some((behind, from)) if !from.is_empty() => {
                let (_, shorter) = split_label(from);
                labels = behind;
                name = shorter;
                resume = Some((behind, shorter));
            }
            Some(_) | None => return false,
        }
    }
}

fn split_label(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

impl FromStr for DnsPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::new(text)
    }
}

impl fmt::Display for DnsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for DnsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl PartialEq for DnsPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for DnsPattern {}

impl std::hash::Hash for DnsPattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for DnsPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DnsPattern {
    /// Compares from the right, character by character; the first difference decides. An ended pattern comes first,
    /// then ordinary characters from the last letter to the first (only to have one order), then `?`, then `*`.
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |byte: u8| match byte {
            b'?' => (1, 0),
            b'*' => (2, 0),
            ordinary => (0, u8::MAX - ordinary),
        };
        let left = self.text.bytes().rev().map(rank);
        left.cmp(other.text.bytes().rev().map(rank))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let name = name.parse().unwrap();
        pattern.parse::<DnsPattern>().unwrap().matches(&name)
    }

    // tunnel 2
    #[test]
    fn tunnel_2_positives() {
        for (pattern, name) in [
            ("**.example.com", "example.com"),
            ("**.example.com", "a.b.c.example.com"),
            ("app.**.example.com", "app.bar.foo.example.com"),
            ("app.**.example.com", "app.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "foo.example.com"),
            ("*.example.com", "EXAMPLE.com"),
            ("*.EXAMPLE.com", "example.COM"),
            ("Foo.Example.Com", "fOO.eXAMPLE.cOM"),
            ("foo.*.example.com", "foo.bar.example.com"),
            ("app.*.*.example.com", "app.foo.bar.example.com"),
            ("app.f??.example.com", "app.foo.example.com"),
            ("*?*.example.com", "app.example.com"),
            ("app.**.web.**.example.com", "app.web.example.com"),
            ("app.**.web.**.example.com", "app.x.web.y.web.z.example.com"),
            ("*.*.example.com", "foo.example.com"),
            ("*ample.com", "example.com"),
            ("*ample.com", "ample.com"),
            ("**", "example.com"),
            ("*", "localhost"),
            ("example.**", "example.com"),
            ("example.com.", "example.com"),
            ("ap[a-p].example.com", "app.example.com"),
            ("AP[A-P].example.com", "app.example.com"),
            ("ap[!a-o].example.com", "app.example.com"),
            ("a*b*c.example.com", "axxbyybzzc.example.com"),
        ] {
            assert!(matches(pattern, name), "{pattern} ~ {name}");
        }
    }

    // tunnel 2
    #[test]
    fn tunnel_2_negatives() {
        for (pattern, name) in [
            ("app.*.example.com", "app.foo.bar.example.com"),
            ("app.*com", "app.foo.com"),
            ("app?com", "app.com"),
            ("app.*.example.com", "app.example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*.*.example.com", "example.com"),
            ("*?*.example.com", "example.com"),
            ("?.example.com", "example.com"),
            ("example.com", "badexample.com"),
            ("example.com", "foo.example.com"),
            ("foo.example.com", "example.com"),
            ("**.example.com", "badexample.com"),
            ("app.f??.example.com", "app.fo.example.com"),
            ("ap[!a-p].example.com", "app.example.com"),
            ("ap[xyz].example.com", "app.example.com"),
            ("**.example.com", "example.com.evil.org"),
            ("*", "a.b"),
        ] {
            assert!(!matches(pattern, name), "{pattern} !~ {name}");
        }
    }

    // tunnel 2
    #[test]
    fn tunnel_2_invalid_patterns_are_errors() {
        use PatternError::{
            BadCharacter, EmptyLabel, MisplacedDoubleStar, TooLong, UnbalancedClass,
        };
        let long = "a".repeat(MAX_PATTERN_LEN + 1);
        for (pattern, error) in [
            ("a**.example.com", MisplacedDoubleStar),
            ("**a.example.com", MisplacedDoubleStar),
            ("***.example.com", MisplacedDoubleStar),
            ("***", MisplacedDoubleStar),
            ("a[bc.example.com", UnbalancedClass),
            ("a[.example.com", UnbalancedClass),
            ("a[].example.com", UnbalancedClass),
            ("a[!].example.com", UnbalancedClass),
            ("", EmptyLabel),
            ("a..b", EmptyLabel),
            ("*..b", EmptyLabel),
            (".example.com", EmptyLabel),
            ("b\u{fc}cher.example", BadCharacter('\u{fc}')),
            ("foo bar", BadCharacter(' ')),
            (long.as_str(), TooLong(MAX_PATTERN_LEN + 1)),
        ] {
            assert_eq!(DnsPattern::new(pattern), Err(error), "{pattern}");
        }
    }

    #[test]
    fn literal_labels_are_whole() {
        for (pattern, labels) in [
            ("www.example.com", "www.example.com"),
            ("*.example.com", "example.com"),
            ("**.example.com", "example.com"),
            ("www.*.example.com", "example.com"),
            ("*ample.com", "com"),
            ("ex[a-c]mple.com", "com"),
            ("exampl?", ""),
            ("**", ""),
            ("example.*", ""),
        ] {
            assert_eq!(
                DnsPattern::new(pattern).unwrap().literal_labels(),
                labels,
                "{pattern}"
            );
        }
    }

    #[test]
    fn root_is_covered_by_nothing() {
        let root = DomainName::root();
        assert!(!DnsPattern::new("**").unwrap().matches(&root));
        assert!(!DnsPattern::new("*").unwrap().matches(&root));
    }

    // tunnel 3
    #[test]
    fn tunnel_3_precedence_for_every_permutation() {
        const ORDER: [&str; 9] = [
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
        let expected = ORDER.map(|text| DnsPattern::new(text).unwrap());
        let mut patterns = expected.clone();
        for_each_permutation(&mut patterns, 9, &mut |permutation| {
            let mut sorted = permutation.to_vec();
            sorted.sort();
            assert_eq!(sorted, expected);
        });
    }

    /// Heap's algorithm.
    fn for_each_permutation<T>(items: &mut [T], len: usize, check: &mut impl FnMut(&[T])) {
        if len == 1 {
            return check(items);
        }
        for index in 0..len {
            for_each_permutation(items, len - 1, check);
            let other = if len.is_multiple_of(2) { index } else { 0 };
            if index + 1 < len {
                items.swap(other, len - 1);
            }
        }
    }

    #[test]
    fn hostile_pattern_and_name_take_bounded_time() {
        let pattern = DnsPattern::new(&format!("{}b", "**.*a*a*a*a*a*.".repeat(30))).unwrap();
        let name: DomainName = ["a".repeat(63), "a".repeat(63), "a".repeat(63), "c.b".into()]
            .join(".")
            .parse()
            .unwrap();
        assert!(!pattern.matches(&name));
    }

    /// The definition, without any shortcut: tries every way.
    fn reference(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                (0..=name.len()).any(|taken| reference(rest, &name[taken..]))
            }
            (Some((first, rest)), Some((label, names))) => {
                reference_label(first.as_bytes(), label.as_bytes()) && reference(rest, names)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    fn reference_label(pattern: &[u8], label: &[u8]) -> bool {
        match (pattern.split_first(), label.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                (0..=label.len()).any(|taken| reference_label(rest, &label[taken..]))
            }
            (Some((b'?', rest)), Some((_, tail))) => reference_label(rest, tail),
            (Some((a, rest)), Some((b, tail))) => a == b && reference_label(rest, tail),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            pattern in prop::collection::vec(prop_oneof!["[ab?*]{1,4}", Just("**".to_owned())], 1..5),
            name in prop::collection::vec("[ab]{1,4}", 1..6),
        ) {
            let text = pattern.join(".");
            let Ok(compiled) = DnsPattern::new(&text) else {
                prop_assert!(pattern.iter().any(|label| label.len() > 2 && label.contains("**")));
                return Ok(());
            };
            let labels: Vec<_> = pattern.iter().map(String::as_str).collect();
            let names: Vec<_> = name.iter().map(String::as_str).collect();
            let apex = labels[0] == "*" && labels.len() > 1 && reference(&labels[1..], &names);
            let expected = reference(&labels, &names) || apex;
            prop_assert_eq!(compiled.matches(&name.join(".").parse().unwrap()), expected);
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in ".{0,80}", name in "[a-z.]{1,40}") {
            if let (Ok(pattern), Ok(name)) = (DnsPattern::new(&text), DomainName::new(&name)) {
                pattern.matches(&name);
            }
        }

        #[test]
        fn order_agrees_with_equality(a in "[ab.?*]{1,6}", b in "[ab.?*]{1,6}") {
            if let (Ok(a), Ok(b)) = (DnsPattern::new(&a), DnsPattern::new(&b)) {
                prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
                prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            }
        }
    }
}
