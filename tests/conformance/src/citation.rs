//! How a test names the items that it shows: `// tunnel 63, 64` above or inside it, or `fn tunnel_63_...`.

use std::collections::BTreeSet;

use crate::items::{ItemId, Spec};

/// Items that a comment names. Only a comment that *begins* with an item counts; prose about a relay 2 does not.
///
/// `tunnel 63`, `tunnel 63, 64`, `tunnel 63–65`, `tunnel 71; snownet 43: an hour of suspend`.
pub fn in_comment(comment: &str) -> BTreeSet<ItemId> {
    let mut items = BTreeSet::new();
    let mut rest = comment.trim_start_matches(['/', '!', ' ']);
    while let Some((found, tail)) = leading(rest) {
        items.extend(found);
        let after = tail.trim_start_matches([',', ';', ' ']);
        if after.len() == tail.len() {
            break;
        }
        rest = after;
    }
    items
}

/// Items that a function's name begins with or contains: `tunnel_63_64_errors`, `idle_snownet_43`.
pub fn in_name(function: &str) -> BTreeSet<ItemId> {
    let mut items = BTreeSet::new();
    let mut spec = None;
    for part in function.split('_') {
        if let Some(named) = Spec::by_name(part) {
            spec = Some(named);
            continue;
        }
        match (spec, part.parse()) {
            // Longer numbers are sizes.
            (Some(spec), Ok(number)) if part.len() <= 2 => {
                items.insert(ItemId { spec, number });
            }
            // `tunnel_81_and_82_...`
            (Some(_), Err(_)) if part == "and" => {}
            (_, _) => spec = None,
        }
    }
    items
}

/// One specification with its numbers at the start of `text`, and what follows.
fn leading(text: &str) -> Option<(BTreeSet<ItemId>, &str)> {
    let (word, rest) = text.split_once(' ')?;
    let spec = Spec::by_name(word)?;
    let (first, mut rest) = leading_number(rest)?;
    let mut numbers = BTreeSet::from([first]);
    let mut last = first;
    loop {
        if let Some((end, tail)) = after(rest, &["–", "-"]) {
            numbers.extend(last..=end);
            (last, rest) = (end, tail);
        } else if let Some((next, tail)) = after(rest, &[", ", " and "]) {
            numbers.insert(next);
            (last, rest) = (next, tail);
        } else {
            break;
        }
    }
    let items = numbers.into_iter().map(|number| ItemId { spec, number });
    Some((items.collect(), rest))
}

fn after<'a>(text: &'a str, separators: &[&str]) -> Option<(u32, &'a str)> {
    let mut tails = separators
        .iter()
        .filter_map(|separator| text.strip_prefix(separator));
    leading_number(tails.next()?)
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comment(text: &str) -> Vec<String> {
        in_comment(text).iter().map(ToString::to_string).collect()
    }

    fn name(text: &str) -> Vec<String> {
        in_name(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comments_name_items_in_every_common_form() {
        assert_eq!(comment("// tunnel 63"), ["tunnel 63"]);
        assert_eq!(comment("/// snownet 6: after an hour"), ["snownet 6"]);
        assert_eq!(comment("// tunnel 63, 64"), ["tunnel 63", "tunnel 64"]);
        assert_eq!(
            comment("// tunnel 5–7 and 9"),
            ["tunnel 5", "tunnel 6", "tunnel 7", "tunnel 9"]
        );
        assert_eq!(
            comment("// tunnel 71; snownet 43, 44"),
            ["tunnel 71", "snownet 43", "snownet 44"]
        );
    }

    #[test]
    fn prose_names_nothing() {
        assert_eq!(comment("// the relay 2 dies"), Vec::<String>::new());
        assert_eq!(comment("// relays 2"), Vec::<String>::new());
        assert_eq!(comment("// tunnel §3.4"), Vec::<String>::new());
        assert_eq!(comment("//"), Vec::<String>::new());
    }

    #[test]
    fn names_name_items() {
        assert_eq!(name("tunnel_63_errors_reach_the_client"), ["tunnel 63"]);
        assert_eq!(name("tunnel_63_64_errors"), ["tunnel 63", "tunnel 64"]);
        assert_eq!(
            name("idle_tunnel_71_snownet_43"),
            ["tunnel 71", "snownet 43"]
        );
        assert_eq!(name("portal_09_user_agent"), ["portal 9"]);
        assert_eq!(name("tunnel_78_1316_bytes_pass"), ["tunnel 78"]);
        assert_eq!(name("tunnel_with_2_relays"), Vec::<String>::new());
        assert_eq!(name("relay_dies_after_3_s"), Vec::<String>::new());
    }
}
