//! The numbered items of the specifications: one file per specification under `items/`.

use std::fmt;

/// A specification with numbered items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Spec {
    /// Client and gateway tunnel.
    Tunnel,
    /// Connections.
    Snownet,
    /// Portal protocol.
    Portal,
    /// Relay.
    Relay,
}

impl Spec {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tunnel, Self::Snownet, Self::Portal, Self::Relay];

    /// How tests name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Snownet => "snownet",
            Self::Portal => "portal",
            Self::Relay => "relay",
        }
    }

    /// The specification with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|spec| spec.name() == name)
    }

    /// Its items in ascending order, without gaps.
    pub fn items(self) -> Vec<Item> {
        parse(self, self.text())
    }

    fn text(self) -> &'static str {
        match self {
            Self::Tunnel => include_str!("../items/tunnel.txt"),
            Self::Snownet => include_str!("../items/snownet.txt"),
            Self::Portal => include_str!("../items/portal.txt"),
            Self::Relay => include_str!("../items/relay.txt"),
        }
    }
}

/// The name of an item: `tunnel 63`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// Whose.
    pub spec: Spec,
    /// From 1.
    pub number: u32,
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.spec.name(), self.number)
    }
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub id: ItemId,
    /// What it demands, in one line.
    pub title: &'static str,
    /// The decision that makes it void, if one does.
    pub void: Option<&'static str>,
}

/// # Panics
///
/// On a line that is no item, and when the numbers are not 1, 2, 3 and so on: the files are part of the program.
fn parse(spec: Spec, text: &'static str) -> Vec<Item> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .enumerate()
        .map(|(index, line)| {
            let (number, rest) = line.split_once("  ").expect("number, two spaces, title");
            let number = number.parse().expect("items begin with their number");
            assert_eq!(
                number as usize,
                index + 1,
                "items are numbered without gaps"
            );
            let (title, void) = match rest.split_once(" | void: ") {
                Some((title, decision)) => (title, Some(decision)),
                None => (rest, None),
            };
            let id = ItemId { spec, number };
            Item { id, title, void }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_specification_has_all_its_items() {
        let counts = Spec::ALL.map(|spec| spec.items().len());

        assert_eq!(counts, [86, 60, 98, 60]);
    }

    #[test]
    fn void_items_name_their_decision() {
        let items = Spec::Tunnel.items();

        assert!(
            items[55]
                .void
                .is_some_and(|decision| decision.contains("row 15"))
        );
        assert_eq!(items[54].void, None);
    }
}
