//! Turns names into ids and checks everything that one part of the file says about another.

mod policy;
mod resource;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use connlib_model::{DomainName, IpNet, SiteId};
use portal_core::{
    config::{Account, Config, Person, PersonId},
    derive::id_from_name,
};

use super::{
    ConfigError, ConfigFile, Database, ServerSettings, TlsFiles, error,
    schema::{self, File, Text},
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
        let entries: Vec<_> = entries.collect();
        self.unique_ids("site", &entries)?;
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
        let ids: Vec<_> = people
            .iter()
            .map(|person| (&person.name, id(person)))
            .collect();
        self.unique_ids("person", &ids)?;
        let names = self.names("person", ids)?;
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

    fn unique_ids<T: Ord>(&self, kind: &str, entries: &[(&Text, T)]) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (name, id) in entries {
            let text = name.get_ref();
            // Equal names are another mistake, told by `names`.
            if !seen.insert(id)
                && entries
                    .iter()
                    .filter(|(other, _)| other.get_ref() == text)
                    .count()
                    == 1
            {
                let problem = format!("the {kind} '{text}' has the id of another {kind}");
                return Err(self.error(name, problem, "Give it an id of its own, or none."));
            }
        }
        Ok(())
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
