//! One label of a pattern.

use super::PatternError;

/// A label without `**`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelGlob(Box<[Token]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    AnyByte,
    /// `*`
    AnyBytes,
    Class {
        negated: bool,
        ranges: Box<[(u8, u8)]>,
    },
}

impl LabelGlob {
    /// Compiles a label, already in lower case.
    pub(super) fn parse(label: &str) -> Result<Self, PatternError> {
        if label.is_empty() {
            return Err(PatternError::EmptyLabel);
        }
        let mut tokens = Vec::with_capacity(label.len());
        let mut rest = label.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            tokens.push(match byte {
                b'?' => Token::AnyByte,
                b'*' if tokens.last() == Some(&Token::AnyBytes) => {
                    return Err(PatternError::MisplacedDoubleStar);
                }
                b'*' => Token::AnyBytes,
                b'[' => {
                    let (class, tail) = parse_class(rest)?;
                    rest = tail;
                    class
                }
                ordinary => Token::Byte(ordinary),
            });
        }
        Ok(Self(tokens.into()))
    }

    /// Whether this is `*` alone.
    pub(super) fn is_star(&self) -> bool {
        *self.0 == [Token::AnyBytes]
    }

    /// Whether all of `label` matches. Only the last star ever takes more, which is enough: what earlier stars took is
    /// the shortest possible and leaves the most to what follows.
    pub(super) fn matches(&self, label: &str) -> bool {
        let mut tokens = &*self.0;
        let mut label = label.as_bytes();
        let mut resume: Option<(&[Token], &[u8])> = None;
        loop {
            match (tokens.split_first(), label.split_first()) {
                (Some((Token::AnyBytes, rest)), _) => {
                    tokens = rest;
                    resume = Some((rest, label));
                    continue;
                }
                (Some((token, rest)), Some((&byte, tail))) if token.accepts(byte) => {
                    tokens = rest;
                    label = tail;
                    continue;
                }
                (None, None) => return true,
                (Some(_) | None, _) => {}
            }
            let Some((behind, [_, shorter @ ..])) = resume else {
                return false;
            };
            tokens = behind;
            label = shorter;
            resume = Some((behind, shorter));
        }
    }
}

impl Token {
    fn accepts(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::AnyByte => true,
            Self::AnyBytes => false,
            Self::Class { negated, ranges } => {
                ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&byte))
                    != *negated
            }
        }
    }
}

/// Reads a class behind its `[`. A `]` that comes first is a member, as everywhere in globs.
fn parse_class(text: &[u8]) -> Result<(Token, &[u8]), PatternError> {
    let (negated, text) = match text.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let end = text
        .iter()
        .skip(1)
        .position(|byte| *byte == b']')
        .ok_or(PatternError::UnbalancedClass)?
        + 1;
    let (mut members, tail) = (&text[..end], &text[end + 1..]);
    let mut ranges = Vec::new();
    while let Some((&low, rest)) = members.split_first() {
        if let [b'-', high, rest @ ..] = rest {
            ranges.push((low, *high));
            members = rest;
        } else {
            ranges.push((low, low));
            members = rest;
        }
    }
    let ranges = ranges.into();
    Ok((Token::Class { negated, ranges }, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, label: &str) -> bool {
        LabelGlob::parse(glob).unwrap().matches(label)
    }

    #[test]
    fn classes() {
        assert!(matches("[abc]", "b"));
        assert!(!matches("[abc]", "d"));
        assert!(matches("[!a-z]", "1"));
        assert!(!matches("[!a-z]", "q"));
        assert!(matches("[]a]", "]"));
        assert!(matches("[a-]", "-"));
        assert!(!matches("[z-a]", "m"));
        assert!(matches("x[0-9][0-9]", "x07"));
        assert!(!matches("[ab]", ""));
    }

    #[test]
    fn only_a_lone_star_is_a_star() {
        assert!(LabelGlob::parse("*").unwrap().is_star());
        assert!(!LabelGlob::parse("*a").unwrap().is_star());
        assert!(!LabelGlob::parse("?").unwrap().is_star());
    }
}
