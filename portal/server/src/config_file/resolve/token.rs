//! Tokens and who holds them.

use std::collections::BTreeMap;

use connlib_model::SiteId;
use portal_core::{
    config::PersonId,
    token::{Component, Holder, Token, TokenHash},
};

use super::{Names, Resolver, Result};
use crate::config_file::{schema, time};

impl Resolver<'_> {
    pub(super) fn tokens(
        &self,
        tokens: Vec<schema::Token>,
        people: &Names<PersonId>,
        sites: &Names<SiteId>,
    ) -> Result<BTreeMap<TokenHash, Token>> {
        let mut by_hash = BTreeMap::new();
        for token in tokens {
            let hash: TokenHash = token.hash.get_ref().parse().map_err(|error: String| {
                let fix = "Make tokens with `firezone-portal token create`.";
                self.error(&token.hash, error, fix)
            })?;
            let holder = self.holder(&token, people, sites)?;
            let expires_at = token.expires.as_ref().map(|expires| {
                time::unix_seconds(expires.get_ref()).ok_or_else(|| {
                    let problem = format!("'{}' is no date", expires.get_ref());
                    self.error(
                        expires,
                        problem,
                        "Write it like 2027-01-31 or 2027-01-31T12:00:00Z.",
                    )
                })
            });
            let checked = Token {
                name: token.name,
                holder,
                expires_at: expires_at.transpose()?,
            };
            if by_hash.insert(hash, checked).is_some() {
                let problem = "there is another token with this hash";
                return Err(self.error(&token.hash, problem, "Remove one of them."));
            }
        }
        Ok(by_hash)
    }

    fn holder(
        &self,
        token: &schema::Token,
        people: &Names<PersonId>,
        sites: &Names<SiteId>,
    ) -> Result<Holder> {
        let component: Component = token.kind.get_ref().parse().map_err(|error: String| {
            let fix = r#"Write type = "client", "gateway" or "relay"."#;
            self.error(&token.kind, error, fix)
        })?;
        let needs = |member: &str| {
            let problem = format!("a {component} token needs a {member}");
            self.error(&token.kind, problem, format!(r#"Add {member} = "…"."#))
        };
        match (component, &token.person, &token.site) {
            (Component::Client, Some(person), None) => {
                self.find(people, person).copied().map(Holder::Client)
            }
            (Component::Gateway, None, Some(site)) => {
                self.find(sites, site).copied().map(Holder::Gateway)
            }
            (Component::Relay, None, None) => Ok(Holder::Relay),
            (Component::Client, None, _) => Err(needs("person")),
            (Component::Gateway, _, None) => Err(needs("site")),
            (_, Some(extra), _) => {
                let problem = format!("a {component} token has no person");
                Err(self.error(extra, problem, "Remove person."))
            }
            (_, None, Some(extra)) => {
                let problem = format!("a {component} token has no site");
                Err(self.error(extra, problem, "Remove site."))
            }
        }
    }
}
