//! Turns names into ids and checks everything that one part of the file says about another.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use connlib_model::{DnsPattern, DomainName, IpNet, IpStack, ResourceId, SiteId};
use portal_core::{
    Conditions,
    config::{Account, Config, Person, PersonId, Policy, PolicyId, ResourceConfig, Target},
    derive::id_from_name,
    token::{Component, Holder, Token, TokenHash},
};

use super::{
    ConfigError, ConfigFile, Database, ServerSettings, TlsFiles, error, filter,
    schema::{self, File, Kind, Text},
    time,
};

/// The group that always exists and has everybody in it.
const EVERYONE: &str = "Everyone";
const DEFAULT_DATABASE: &str = "/var/lib/firezone-portal";
const DATABASE_FILE: &str = "portal.sqlite";
const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
const DNS_PORT: u16 = 53;
/// The tunnel's own addresses; nothing that is configured may lie in there.
const RESERVED: [&str; 2] = ["100.64.0.0/10", "fd00:2021:1111::/48"];

type Result<T> = std::result::Result<T, ConfigError>;

pub(super) struct Resolver<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Names of one kind and what they stand for.
struct Names<T> {
    kind: &'static str,
    by_name: BTreeMap<String, T>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    pub(super) fn resolve(&self, file: File) -> Result<ConfigFile> {
        let server = self.server(file.server)?;
        let sites = self.sites(&file.site)?;
        let (people, person_names) = self.people(&file.person)?;
        let groups = self.groups(&file.group, &person_names)?;
        let (resources, resource_names) = self.resources(file.resource, &sites)?;
        let policies = self.policies(file.policy, &groups, &resource_names, &people)?;
        let tokens = self.tokens(file.token, &person_names, &sites)?;
        let portal = Config {
            account: Account {
                id: file
                    .account
                    .id
                    .unwrap_or_else(|| id_from_name("account", &file.account.name)),
                slug: file.account.name,
            },
            sites: sites
                .by_name
                .into_iter()
                .map(|(name, id)| (id, name))
                .collect(),
            resources,
            people,
            policies,
            tokens,
            dns_servers: file
                .dns
                .servers
                .iter()
                .map(|text| self.dns_server(text))
                .collect::<Result<_>>()?,
            search_domain: file
                .dns
                .search_domain
                .map(|text| self.domain(&text))
                .transpose()?,
            verified_devices: file.devices.verified.into_iter().collect(),
        };
        Ok(ConfigFile { server, portal })
    }

    fn server(&self, server: schema::Server) -> Result<ServerSettings> {
        let listen = server.listen.get_ref().parse().map_err(|_| {
            let problem = format!("'{}' is no address to listen on", server.listen.get_ref());
            self.error(
                &server.listen,
                problem,
                r#"Write address and port, such as "0.0.0.0:8080"."#,
            )
        })?;
        let tls = match (server.tls_certificate, server.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: self.beside(certificate.get_ref()),
                key: self.beside(key.get_ref()),
            }),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let problem = "TLS needs both tls_certificate and tls_key";
                return Err(self.error(&one, problem, "Set both, or none for plain HTTP."));
            }
        };
        let max_connections = match server.max_connections {
            Some(max) if *max.get_ref() == 0 => {
                let fix = "Leave it out or set a number above 0.";
                return Err(self.error(
                    &max,
                    "max_connections is 0, so that nobody can connect",
                    fix,
                ));
            }
            Some(max) => max.into_inner(),
            None => DEFAULT_MAX_CONNECTIONS,
        };
        Ok(ServerSettings {
            listen,
            tls,
            database: self.database(server.database),
            max_connections,
            trust_proxy_headers: server.trust_proxy_headers,
        })
    }

    fn database(&self, configured: Option<PathBuf>) -> Database {
        match configured {
            Some(path) if path.as_os_str() == ":memory:" => Database::Memory,
            Some(path) => Database::File(self.beside(&path)),
            None => {
                // A service manager may name the directory; several are separated by colons.
                let directory = env::var("STATE_DIRECTORY").ok();
                let directory = directory.as_deref().and_then(|list| list.split(':').next());
                let directory = directory.filter(|directory| !directory.is_empty());
                Database::File(Path::new(directory.unwrap_or(DEFAULT_DATABASE)).join(DATABASE_FILE))
            }
        }
    }

    fn sites(&self, sites: &[schema::Site]) -> Result<Names<SiteId>> {
        let entries = sites.iter().map(|site| {
            let id = site
                .id
                .unwrap_or_else(|| id_from_name("site", site.name.get_ref()));
            (&site.name, SiteId::new(id))
        });
        self.names("site", entries)
    }

    fn people(
        &self,
        people: &[schema::Person],
    ) -> Result<(BTreeMap<PersonId, Person>, Names<PersonId>)> {
        let id = |person: &schema::Person| {
            PersonId(
                person
                    .id
                    .unwrap_or_else(|| id_from_name("person", person.name.get_ref())),
            )
        };
        let names = self.names("person", people.iter().map(|p| (&p.name, id(p))))?;
        let enabled = people.iter().filter(|person| person.enabled);
        let enabled = enabled.map(|person| {
            let name = person.name.get_ref().clone();
            let email = person.email.clone();
            (id(person), Person { name, email })
        });
        Ok((enabled.collect(), names))
    }

    fn groups(
        &self,
        groups: &[schema::Group],
        people: &Names<PersonId>,
    ) -> Result<Names<BTreeSet<PersonId>>> {
        let mut entries = Vec::new();
        for group in groups {
            if group.name.get_ref() == EVERYONE {
                let problem = "the group 'Everyone' exists always, with everybody in it";
                return Err(self.error(&group.name, problem, "Give this group another name."));
            }
            let members = group
                .members
                .iter()
                .map(|name| self.find(people, name).copied());
            entries.push((&group.name, members.collect::<Result<_>>()?));
        }
        let mut names = self.names("group", entries)?;
        let everybody = people.by_name.values().copied().collect();
        names.by_name.insert(EVERYONE.to_owned(), everybody);
        Ok(names)
    }

    fn resources(
        &self,
        resources: Vec<schema::Resource>,
        sites: &Names<SiteId>,
    ) -> Result<(BTreeMap<ResourceId, ResourceConfig>, Names<ResourceId>)> {
        let mut by_id = BTreeMap::new();
        let mut ids = Vec::new();
        for resource in &resources {
            let checked = self.resource(resource, sites)?;
            ids.push((&resource.name, checked.id));
            by_id.insert(checked.id, checked);
        }
        Ok((by_id, self.names("resource", ids)?))
    }

    fn resource(
        &self,
        resource: &schema::Resource,
        sites: &Names<SiteId>,
    ) -> Result<ResourceConfig> {
        let name = resource.name.get_ref();
        let named = resource.site.iter().chain(&resource.sites);
        let sites: BTreeSet<_> = named
            .map(|site| self.find(sites, site).copied())
            .collect::<Result<_>>()?;
        if sites.is_empty() {
            let problem = format!("resource '{name}' has no site, so no gateway could serve it");
            return Err(self.error(&resource.name, problem, r#"Add site = "…"."#));
        }
        let filters = resource.filters.iter().map(|text| {
            filter::parse(text.get_ref()).ok_or_else(|| {
                let problem = format!("'{}' is no filter", text.get_ref());
                self.error(text, problem, filter::EXAMPLES)
            })
        });
        let filters: Vec<_> = filters.collect::<Result<_>>()?;
        if let (Kind::Internet, Some(text)) = (resource.kind, resource.filters.first()) {
            let problem = "an internet resource cannot have filters";
            return Err(self.error(text, problem, "Remove the filters."));
        }
        if let (false, Some(stack)) = (resource.kind == Kind::Dns, &resource.ip_stack) {
            let problem = "ip_stack is only for resources of type \"dns\"";
            return Err(self.error(stack, problem, "Remove ip_stack."));
        }
        let id = resource
            .id
            .unwrap_or_else(|| id_from_name("resource", name));
        Ok(ResourceConfig {
            id: ResourceId::new(id),
            name: name.clone(),
            description: resource.description.clone(),
            target: self.target(resource)?,
            sites,
            filters,
        })
    }

    fn target(&self, resource: &schema::Resource) -> Result<Target> {
        let address = match (resource.kind, &resource.address) {
            (Kind::Internet, None) => return Ok(Target::Internet),
            (Kind::Internet, Some(address)) => {
                let problem = "an internet resource cannot have an address";
                return Err(self.error(address, problem, "Remove the address."));
            }
            (Kind::Cidr | Kind::Ip | Kind::Dns, Some(address)) => address,
            (Kind::Cidr | Kind::Ip | Kind::Dns, None) => {
                let problem = format!("resource '{}' has no address", resource.name.get_ref());
                return Err(self.error(&resource.name, problem, r#"Add address = "…"."#));
            }
        };
        let text = address.get_ref();
        let wrong =
            |what: &str, fix: &str| self.error(address, format!("'{text}' is no {what}"), fix);
        match resource.kind {
            Kind::Cidr => {
                let net: IpNet = text
                    .parse()
                    .map_err(|_| wrong("network", r#"Write it like "10.40.0.0/16"."#))?;
                if net.trunc() != net {
                    let fix = format!(
                        r#"Write "{}", or type = "ip" for one address."#,
                        net.trunc()
                    );
                    return Err(wrong("network: it has bits behind its prefix", &fix));
                }
                self.outside_reserved(address, net)?;
                Ok(Target::Cidr(net))
            }
            Kind::Ip => {
                let fix = r#"Write it like "192.0.2.17", or use type = "cidr" for a network."#;
                let ip: IpAddr = text.parse().map_err(|_| wrong("IP address", fix))?;
                self.outside_reserved(address, ip.into())?;
                Ok(Target::Cidr(ip.into()))
            }
            Kind::Dns => {
                let pattern = DnsPattern::new(text).map_err(|error| {
                    wrong(
                        &format!("pattern for names ({error})"),
                        r#"Write it like "*.corp.example"."#,
                    )
                })?;
                let stack = resource.ip_stack.as_ref().map(|stack| *stack.get_ref());
                Ok(Target::Dns {
                    pattern: pattern.as_str().to_owned(),
                    ip_stack: match stack {
                        None | Some(schema::IpStack::Dual) => IpStack::Dual,
                        Some(schema::IpStack::Ipv4Only) => IpStack::Ipv4Only,
                        Some(schema::IpStack::Ipv6Only) => IpStack::Ipv6Only,
                    },
                })
            }
            Kind::Internet => Ok(Target::Internet),
        }
    }

    fn policies(
        &self,
        policies: Vec<schema::Policy>,
        groups: &Names<BTreeSet<PersonId>>,
        resources: &Names<ResourceId>,
        people: &BTreeMap<PersonId, Person>,
    ) -> Result<BTreeMap<PolicyId, Policy>> {
        let mut all = BTreeMap::new();
        for policy in policies {
            let members = self.find(groups, &policy.group)?;
            let resource = *self.find(resources, &policy.resource)?;
            let conditions = self.conditions(&policy.conditions)?;
            let name = format!("{}\n{}", policy.group.get_ref(), policy.resource.get_ref());
            let id = PolicyId(policy.id.unwrap_or_else(|| id_from_name("policy", &name)));
            if all.contains_key(&id) {
                let problem = format!(
                    "there is another policy for group '{}' and resource '{}'",
                    policy.group.get_ref(),
                    policy.resource.get_ref()
                );
                let fix = "Remove one, or give one an id of its own (a UUID).";
                return Err(self.error(&policy.group, problem, fix));
            }
            let members = members.iter().filter(|person| people.contains_key(person));
            let checked = Policy {
                people: members.copied().collect(),
                resource,
                conditions,
            };
            all.insert(id, policy.enabled.then_some(checked));
        }
        let enabled = all
            .into_iter()
            .filter_map(|(id, policy)| Some((id, policy?)));
        Ok(enabled.collect())
    }

    fn conditions(&self, conditions: &schema::Conditions) -> Result<Conditions> {
        let network = |text: &Text| {
            let written = text.get_ref();
            let net = written.parse::<IpNet>().ok();
            let net = net.or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
            net.ok_or_else(|| {
                let problem = format!("'{written}' is no network");
                self.error(text, problem, r#"Write it like "198.51.100.0/24"."#)
            })
        };
        let region = |text: &Text| {
            let code = text.get_ref().to_ascii_uppercase();
            let valid = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
            valid.then_some(code).ok_or_else(|| {
                let problem = format!("'{}' is no country code", text.get_ref());
                self.error(text, problem, r#"Write two letters, such as "DE"."#)
            })
        };
        let window = |text: &Text| {
            time::parse_window(text.get_ref()).ok_or_else(|| {
                let problem = format!("'{}' is no time window", text.get_ref());
                self.error(text, problem, time::EXAMPLES)
            })
        };
        Ok(Conditions {
            remote_ip: conditions
                .remote_ip
                .iter()
                .map(network)
                .collect::<Result<_>>()?,
            regions: conditions
                .regions
                .iter()
                .map(region)
                .collect::<Result<_>>()?,
            times: conditions.times.iter().map(window).collect::<Result<_>>()?,
            verified: conditions.verified,
        })
    }

    fn tokens(
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

    fn dns_server(&self, text: &Text) -> Result<SocketAddr> {
        let written = text.get_ref();
        let address = written.parse::<SocketAddr>().ok();
        let address = address.or_else(|| {
            let ip = written.parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(ip, DNS_PORT))
        });
        let address = address.ok_or_else(|| {
            let problem = format!("'{written}' is no DNS server");
            self.error(
                text,
                problem,
                r#"Write it like "9.9.9.9" or "[2620:fe::fe]:53"."#,
            )
        })?;
        self.outside_reserved(text, address.ip().into())?;
        Ok(address)
    }

    fn domain(&self, text: &Text) -> Result<String> {
        let domain: DomainName = text.get_ref().parse().map_err(|error| {
            let problem = format!("'{}' is no domain ({error})", text.get_ref());
            self.error(text, problem, r#"Write it like "corp.example"."#)
        })?;
        Ok(domain.as_str().to_owned())
    }

    fn outside_reserved(&self, text: &Text, net: IpNet) -> Result<()> {
        let reserved = RESERVED.iter().filter_map(|net| net.parse::<IpNet>().ok());
        match reserved
            .into_iter()
            .find(|reserved| reserved.contains(&net))
        {
            None => Ok(()),
            Some(reserved) => {
                let problem = format!(
                    "'{}' lies in the tunnel's own range {reserved}",
                    text.get_ref()
                );
                Err(self.error(text, problem, "Use an address outside of it."))
            }
        }
    }

    fn names<'t, T>(
        &self,
        kind: &'static str,
        entries: impl IntoIterator<Item = (&'t Text, T)>,
    ) -> Result<Names<T>> {
        let mut by_name = BTreeMap::new();
        for (name, value) in entries {
            let text = name.get_ref();
            if text.trim().is_empty() {
                let problem = format!("a {kind} has an empty name");
                return Err(self.error(name, problem, "Give it a name."));
            }
            if by_name.insert(text.clone(), value).is_some() {
                let problem = format!("there is another {kind} with the name '{text}'");
                return Err(self.error(name, problem, "Give one of them another name."));
            }
        }
        Ok(Names { kind, by_name })
    }

    fn find<'n, T>(&self, names: &'n Names<T>, name: &Text) -> Result<&'n T> {
        let text = name.get_ref();
        names.by_name.get(text).ok_or_else(|| {
            let kind = names.kind;
            let known: Vec<_> = names.by_name.keys().map(String::as_str).collect();
            let known = match known.as_slice() {
                [] => String::new(),
                known => format!(", or use one of: {}", known.join(", ")),
            };
            let problem = format!("there is no {kind} with the name '{text}'");
            self.error(name, problem, format!("Add a [[{kind}]]{known}."))
        })
    }

    /// Paths are relative to the file.
    fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn error<T>(
        &self,
        at: &toml::Spanned<T>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> ConfigError {
        let line = error::line_of(self.text, at.span().start);
        ConfigError::new(self.path, Some(line), problem, fix)
    }
}
