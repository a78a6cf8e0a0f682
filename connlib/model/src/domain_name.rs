//! Domain names in the one form that is compared everywhere: lower case, no trailing dot.
//!
//! Names come from the network (DNS questions, control messages), so the constructor checks RFC 1035 §2.3.4 sizes and
//! accepts visible ASCII only; anything else cannot name a resource and is treated by callers as foreign.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name in text form without the trailing dot (RFC 1035 §2.3.4: 255 octets on the wire).
pub const MAX_NAME_LEN: usize = 253;
/// Longest label (RFC 1035 §2.3.4).
pub const MAX_LABEL_LEN: usize = 63;

/// A domain name: lower case, without trailing dot, 1 to 253 characters of visible ASCII, labels of 1 to 63; or the
/// root, whose text is empty. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(Arc<str>);

/// Why text is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainNameError {
    /// Nothing between two dots, or nothing at all.
    #[error("domain name has an empty label")]
    EmptyLabel,
    /// A label of more than [`MAX_LABEL_LEN`].
    #[error("domain name has a label of {0} characters; {MAX_LABEL_LEN} are allowed")]
    LabelTooLong(usize),
    /// A name of more than [`MAX_NAME_LEN`].
    #[error("domain name has {0} characters; {MAX_NAME_LEN} are allowed")]
    TooLong(usize),
    /// A character that is not visible ASCII.
    #[error("domain name contains {0:?}; write international names in their ASCII form (xn--…)")]
    BadCharacter(char),
}

impl DomainName {
    /// Checks and lower-cases `text`; one trailing dot is taken off, `"."` is the root.
    pub fn new(text: &str) -> Result<Self, DomainNameError> {
        if text == "." {
            return Ok(Self::root());
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_NAME_LEN {
            return Err(DomainNameError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(DomainNameError::BadCharacter(bad));
        }
        for label in text.split('.') {
            match label.len() {
                0 => return Err(DomainNameError::EmptyLabel),
                1..=MAX_LABEL_LEN => {}
                len => return Err(DomainNameError::LabelTooLong(len)),
            }
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The root of the DNS.
    pub fn root() -> Self {
        Self("".into())
    }

    /// The text: lower case, no trailing dot; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Labels from left to right; none for the root.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('.').filter(|label| !label.is_empty())
    }

    /// Whether the name has exactly one label, so that a search domain applies.
    pub fn is_single_label(&self) -> bool {
        !self.is_root() && !self.0.contains('.')
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_suffix(&*ancestor.0)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// `self` with `suffix` behind it.
    pub fn join(&self, suffix: &Self) -> Result<Self, DomainNameError> {
        match (self.is_root(), suffix.is_root()) {
            (true, _) => Ok(suffix.clone()),
            (_, true) => Ok(self.clone()),
            (false, false) => Self::new(&format!("{}.{}", self.0, suffix.0)),
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainNameError;

    fn try_from(text: String) -> Result<Self, DomainNameError> {
        Self::new(&text)
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.to_string()
    }
}

impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    #[test]
    fn case_and_trailing_dot_do_not_matter() {
        assert_eq!(name("Foo.EXAMPLE.com."), name("foo.example.com"));
        assert_eq!(name("foo.example.com").as_str(), "foo.example.com");
    }

    #[test]
    fn root_has_no_labels_and_prints_as_dot() {
        assert_eq!(name("."), DomainName::root());
        assert_eq!(DomainName::root().labels().count(), 0);
        assert_eq!(DomainName::root().to_string(), ".");
    }

    #[test]
    fn bad_names_are_errors() {
        assert_eq!(DomainName::new(""), Err(DomainNameError::EmptyLabel));
        assert_eq!(DomainName::new("a..b"), Err(DomainNameError::EmptyLabel));
        assert_eq!(DomainName::new(".a"), Err(DomainNameError::EmptyLabel));
        assert_eq!(DomainName::new(".."), Err(DomainNameError::EmptyLabel));
        assert_eq!(
            DomainName::new("bücher.example"),
            Err(DomainNameError::BadCharacter('ü'))
        );
        assert_eq!(
            DomainName::new("a b"),
            Err(DomainNameError::BadCharacter(' '))
        );
        assert_eq!(
            DomainName::new(&"a".repeat(64)),
            Err(DomainNameError::LabelTooLong(64))
        );
        assert!(DomainName::new(&"a".repeat(63)).is_ok());
        let longest = [
            &*"a".repeat(63),
            &"b".repeat(63),
            &"c".repeat(63),
            &"d".repeat(61),
        ]
        .join(".");
        assert_eq!(longest.len(), 253);
        assert!(DomainName::new(&longest).is_ok());
        assert_eq!(
            DomainName::new(&format!("{longest}d")),
            Err(DomainNameError::TooLong(254))
        );
    }

    #[test]
    fn within_compares_whole_labels() {
        assert!(name("a.example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&name("example.com")));
        assert!(!name("badexample.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&DomainName::root()));
    }

    #[test]
    fn join_appends_a_search_domain() {
        assert_eq!(
            name("wiki").join(&name("corp.example")).unwrap(),
            name("wiki.corp.example")
        );
        assert!(name("wiki").is_single_label());
        assert!(!name("wiki.corp").is_single_label());
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_an_error(text in ".{0,300}") {
            if let Ok(name) = DomainName::new(&text) {
                prop_assert!(name.as_str().len() <= MAX_NAME_LEN);
                prop_assert_eq!(DomainName::new(name.as_ref()), Ok(name.clone()));
                prop_assert_eq!(name.as_str().to_ascii_lowercase(), name.as_str());
            }
        }
    }
}
