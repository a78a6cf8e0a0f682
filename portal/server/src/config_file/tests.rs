//! Mistakes and how they are reported.

use std::path::Path;

use connlib_model::Filter;
use portal_core::config::Target;

use super::*;

const EXAMPLE: &str = include_str!("../../portal.example.toml");

fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
    ConfigFile::parse(Path::new("/etc/firezone/portal.toml"), text)
}

/// The example with one text replaced by another.
fn changed(from: &str, to: &str) -> Result<ConfigFile, ConfigError> {
    assert!(EXAMPLE.contains(from), "{from} is not in the example");
    parse(&EXAMPLE.replacen(from, to, 1))
}

#[test]
fn example_is_valid() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.portal.sites.len(), 2);
    assert_eq!(config.portal.resources.len(), 4);
    assert_eq!(config.portal.people.len(), 2);
    assert_eq!(config.portal.policies.len(), 4);
    assert_eq!(config.portal.tokens.len(), 3);
    assert_eq!(config.server.database, Database::Memory);
    assert_eq!(config.portal.dns_servers.len(), 2);
    let staff_only = config
        .portal
        .policies
        .values()
        .filter(|policy| policy.people.len() == 1);
    assert_eq!(staff_only.count(), 3);
    let lab = config
        .portal
        .resources
        .values()
        .find(|resource| resource.name == "Lab")
        .unwrap();
    assert_eq!(
        lab.filters,
        [Filter::Tcp(22..=22), Filter::Tcp(8000..=8100), Filter::Icmp]
    );
}

// portal 91
#[test]
fn portal_91_single_address_becomes_a_network_of_one() {
    let config = parse(EXAMPLE).unwrap();
    let printer = config
        .portal
        .resources
        .values()
        .find(|resource| resource.name == "Printer");
    let target = Target::Cidr("192.0.2.17/32".parse().unwrap());
    assert_eq!(printer.unwrap().target, target);
    let v6 = changed("192.0.2.17", "2001:db8::17").unwrap();
    let printer = v6
        .portal
        .resources
        .values()
        .find(|resource| resource.name == "Printer");
    assert_eq!(
        printer.unwrap().target,
        Target::Cidr("2001:db8::17/128".parse().unwrap())
    );
}

#[test]
fn ids_follow_from_names_and_can_be_given() {
    let (first, again) = (parse(EXAMPLE).unwrap(), parse(EXAMPLE).unwrap());
    assert_eq!(first, again);
    let given = "9e0d4c1b-63a7-4f8e-b0c2-2b7f5d1a8e33";
    let config = changed(
        "name = \"Lab\"\n",
        &format!("name = \"Lab\"\nid = \"{given}\"\n"),
    )
    .unwrap();
    assert!(
        config
            .portal
            .resources
            .contains_key(&given.parse().unwrap())
    );
}

#[test]
fn disabled_people_and_policies_are_left_out() {
    let config = changed("name = \"Jo\"\n", "name = \"Jo\"\nenabled = false\n").unwrap();
    assert_eq!(config.portal.people.len(), 1);
    assert!(
        config
            .portal
            .policies
            .values()
            .all(|policy| policy.people.len() < 2)
    );
    let hash = config
        .portal
        .tokens
        .iter()
        .find(|(_, token)| token.name == "Jo's laptop");
    assert!(
        config.portal.token(hash.unwrap().0).is_none(),
        "the token does not work"
    );
    let config = changed(
        "resource = \"Printer\"\n",
        "resource = \"Printer\"\nenabled = false\n",
    );
    assert_eq!(config.unwrap().portal.policies.len(), 3);
}

#[test]
fn every_mistake_names_line_problem_and_fix() {
    let cases = [
        (
            "listen = \"0.0.0.0:8080\"",
            "listen = \"8080\"",
            "no address to listen on",
            "0.0.0.0:8080",
        ),
        (
            "# tls_key",
            "tls_key",
            "both tls_certificate and tls_key",
            "Set both",
        ),
        (
            "# max_connections = 10000",
            "max_connections = 0",
            "nobody can connect",
            "above 0",
        ),
        (
            "name = \"Egress\"",
            "name = \"Berlin\"",
            "another site",
            "another name",
        ),
        (
            "name = \"Egress\"",
            "name = \" \"",
            "empty name",
            "Give it a name",
        ),
        (
            "site = \"Egress\"",
            "site = \"Rome\"",
            "no site with the name 'Rome'",
            "Berlin, Egress",
        ),
        ("site = \"Egress\"", "", "has no site", "Add site"),
        (
            "\"10.40.0.0/16\"",
            "\"10.40.0.0\"",
            "no network",
            "10.40.0.0/16",
        ),
        (
            "\"10.40.0.0/16\"",
            "\"10.40.1.0/16\"",
            "bits behind its prefix",
            "\"10.40.0.0/16\"",
        ),
        (
            "\"10.40.0.0/16\"",
            "\"100.64.0.0/16\"",
            "tunnel's own range",
            "outside",
        ),
        (
            "\"192.0.2.17\"",
            "\"192.0.2.0/24\"",
            "no IP address",
            "type = \"cidr\"",
        ),
        (
            "\"**.corp.example\"",
            "\"a**.example\"",
            "no pattern",
            "*.corp.example",
        ),
        (
            "\"udp:161-162\"",
            "\"udp:162-161\"",
            "no filter",
            "udp:1000-2000",
        ),
        (
            "type = \"internet\"",
            "type = \"internet\"\naddress = \"x\"",
            "cannot have an address",
            "Remove",
        ),
        (
            "type = \"internet\"",
            "type = \"internet\"\nfilters = [\"tcp\"]",
            "cannot have filters",
            "Remove",
        ),
        (
            "type = \"internet\"",
            "type = \"web\"",
            "unknown variant",
            "portal.example.toml",
        ),
        (
            "type = \"cidr\"\naddress = \"10.40.0.0/16\"",
            "type = \"cidr\"",
            "has no address",
            "Add address",
        ),
        (
            "type = \"cidr\"",
            "type = \"cidr\"\nip_stack = \"dual\"",
            "only for resources of type",
            "Remove ip_stack",
        ),
        (
            "members = [\"Jo\"]",
            "members = [\"Joe\"]",
            "no person with the name 'Joe'",
            "Build server, Jo",
        ),
        (
            "name = \"Staff\"",
            "name = \"Everyone\"",
            "exists always",
            "another name",
        ),
        (
            "group = \"Staff\"",
            "group = \"Stuff\"",
            "no group with the name 'Stuff'",
            "Everyone, Staff",
        ),
        (
            "resource = \"Printer\"",
            "resource = \"Lab\"",
            "another policy",
            "Remove one",
        ),
        (
            "\"Sat 08:00-12:00 +01:00\"",
            "\"Sat 12-8\"",
            "no time window",
            "Mon-Fri 09:00-17:00",
        ),
        (
            "\"0.0.0.0/0\"",
            "\"everywhere\"",
            "no network",
            "198.51.100.0/24",
        ),
        (
            "# regions = [\"DE\", \"FR\"]",
            "regions = [\"Germany\"]",
            "no country code",
            "DE",
        ),
        ("\"9.9.9.9\"", "\"dns.example\"", "no DNS server", "9.9.9.9"),
        (
            "\"9.9.9.9\"",
            "\"100.100.111.1\"",
            "tunnel's own range",
            "outside",
        ),
        (
            "\"corp.example\"",
            "\"corp..example\"",
            "no domain",
            "corp.example",
        ),
        (
            "type = \"client\"",
            "type = \"laptop\"",
            "not client, gateway or relay",
            "Write type",
        ),
        ("person = \"Jo\"", "", "needs a person", "Add person"),
        ("person = \"Jo\"", "person = \"Joe\"", "no person", "Jo"),
        (
            "type = \"relay\"",
            "type = \"relay\"\nsite = \"Berlin\"",
            "has no site",
            "Remove site",
        ),
        (
            "0000000000000001",
            "000000000000000g",
            "64 hexadecimal digits",
            "token create",
        ),
        (
            "0000000000000001",
            "0000000000000002",
            "another token",
            "Remove one",
        ),
        ("2037-12-31T23:59:59Z", "12:00:00", "no date", "2027-01-31"),
        (
            "[account]",
            "[acount]",
            "unknown field",
            "portal.example.toml",
        ),
        ("listen =", "listen", "", "portal.example.toml"),
    ];
    for (from, to, problem, fix) in cases {
        let Err(error) = changed(from, to) else {
            panic!("{to} is accepted");
        };
        assert!(error.problem.contains(problem), "{to}: {error}");
        assert!(error.fix.contains(fix), "{to}: {error}");
        let line = error
            .line
            .unwrap_or_else(|| panic!("{to}: no line in {error}"));
        assert!(
            error
                .to_string()
                .starts_with(&format!("/etc/firezone/portal.toml:{line}: "))
        );
    }
}

#[test]
fn the_line_is_the_line_of_the_mistake() {
    let error = changed("site = \"Egress\"", "site = \"Rome\"").unwrap_err();
    let line = EXAMPLE
        .lines()
        .position(|line| line == "site = \"Egress\"")
        .unwrap()
        + 1;
    assert_eq!(error.line, Some(line));
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = changed("database = \":memory:\"", "database = \"state/p.sqlite\"").unwrap();
    let path = "/etc/firezone/state/p.sqlite".into();
    assert_eq!(config.server.database, Database::File(path));
}
