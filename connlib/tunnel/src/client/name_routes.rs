//! Which DNS resources cover a name, found without looking at those that do not.
//!
//! Every name that a pattern covers ends with the pattern's literal labels, so the patterns are kept by these, and a name
//! asks for each of its own ends: `www.example.com` for itself, `example.com`, `com` and the patterns that end in no literal
//! label.

use connlib_lookup::{Secret, Table};
use connlib_model::{DnsPattern, DomainName, Filter, IpStack, ResourceId};

/// What a DNS resource permits, and for which names.
#[derive(Debug)]
pub(crate) struct DnsRoute {
    pub(crate) pattern: DnsPattern,
    pub(crate) filters: Vec<Filter>,
    pub(crate) ip_stack: IpStack,
}

/// The active DNS resources.
#[derive(Debug)]
pub(crate) struct NameRoutes {
    routes: Table<ResourceId, DnsRoute>,
    by_literal_end: Table<Box<str>, Vec<ResourceId>>,
}

impl NameRoutes {
    /// No resource.
    pub(crate) fn new(secret: Secret) -> Self {
        Self {
            routes: secret.table(),
            by_literal_end: secret.table(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.routes.clear();
        self.by_literal_end.clear();
    }

    /// Adds a resource that is not there yet.
    pub(crate) fn insert(&mut self, resource: ResourceId, route: DnsRoute) {
        self.by_literal_end
            .entry(route.pattern.literal_labels().into())
            .or_default()
            .push(resource);
        self.routes.insert(resource, route);
    }

    pub(crate) fn get(&self, resource: ResourceId) -> Option<&DnsRoute> {
        self.routes.get(&resource)
    }

    /// The resources whose pattern covers `domain`, in no particular order.
    pub(crate) fn covering(
        &self,
        domain: &DomainName,
    ) -> impl Iterator<Item = (ResourceId, &DnsRoute)> {
        self.candidates(domain)
            .filter(move |(_, route)| route.pattern.matches(domain))
    }

    /// The resources whose literal labels `domain` ends with.
    fn candidates(&self, domain: &DomainName) -> impl Iterator<Item = (ResourceId, &DnsRoute)> {
        ends(domain.as_str())
            .filter_map(|end| self.by_literal_end.get(end))
            .flatten()
            .filter_map(|id| Some((*id, self.routes.get(id)?)))
    }
}

/// All of `name`, then what is behind each dot, then nothing.
fn ends(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |end| {
        (!end.is_empty()).then(|| end.split_once('.').map_or("", |(_, rest)| rest))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends_of_a_name() {
        let all = |name| ends(name).collect::<Vec<_>>();
        assert_eq!(all("a.b.c"), ["a.b.c", "b.c", "c", ""]);
        assert_eq!(all(""), [""]);
    }

    fn routes(patterns: &[String]) -> NameRoutes {
        let mut routes = NameRoutes::new(Secret::from_seed([0; 32]));
        for (number, pattern) in patterns.iter().enumerate() {
            let Ok(pattern) = DnsPattern::new(pattern) else {
                continue;
            };
            let route = DnsRoute {
                pattern,
                filters: Vec::new(),
                ip_stack: IpStack::Dual,
            };
            routes.insert(ResourceId::from_u128(number as u128), route);
        }
        routes
    }

    #[test]
    fn only_patterns_with_an_end_in_common_are_tried() {
        let kinds = |zone| ["", "*.", "**."].map(|kind| format!("{kind}zone{zone}.example.com"));
        let patterns: Vec<_> = (0..10_000).flat_map(kinds).collect();
        let routes = routes(&patterns);
        for (name, tried) in [
            ("zone77.example.com", 3),
            ("a.b.zone77.example.com", 3),
            ("example.com", 0),
            ("www.example.org", 0),
        ] {
            let candidates = routes.candidates(&name.parse().unwrap()).count();
            assert_eq!(candidates, tried, "{name}");
        }
    }

    proptest! {
        #[test]
        fn equals_a_look_at_every_pattern(
            patterns in prop::collection::vec("(\\*\\*\\.|\\*\\.|)[ab?*]{1,2}(\\.[ab*]{1,2}){0,2}", 0..40),
            names in prop::collection::vec("[ab]{1,2}(\\.[ab]{1,2}){0,3}", 1..20),
        ) {
            let routes = routes(&patterns);
            for name in names {
                let name: DomainName = name.parse().unwrap();
                let found: Vec<_> = routes.covering(&name).map(|(id, _)| id).collect();
                let expected: BTreeSet<_> = (0..patterns.len())
                    .filter(|at| DnsPattern::new(&patterns[*at]).is_ok_and(|pattern| pattern.matches(&name)))
                    .map(|at| ResourceId::from_u128(at as u128))
                    .collect();
                prop_assert_eq!(found.len(), expected.len());
                prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
            }
        }
    }
}
