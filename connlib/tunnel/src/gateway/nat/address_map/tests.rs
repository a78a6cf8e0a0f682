//! Mappings, and clients that number anew.

use super::*;

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn proxies() -> Vec<IpAddr> {
    ips(&[
        "100.96.0.1",
        "100.96.0.2",
        "100.96.0.3",
        "100.96.0.4",
        "fd00:2021:1111:8000::",
        "fd00:2021:1111:8000::1",
        "fd00:2021:1111:8000::2",
        "fd00:2021:1111:8000::3",
    ])
}

fn assign(
    map: &mut AddressMap,
    resource: u128,
    domain: &str,
    proxies: &[IpAddr],
    resolved: Option<&[&str]>,
) -> Result<Assigned, AssignError> {
    let resolved = resolved.map(ips);
    let assignment = Assignment {
        resource: ResourceId::from_u128(resource),
        domain: &domain.parse().unwrap(),
        proxies,
    };
    map.assign(&assignment, resolved.as_deref())
}

fn reals(map: &AddressMap) -> Vec<String> {
    let text = |entry: &Entry| entry.real().map_or("none".into(), |ip| ip.to_string());
    proxies()
        .iter()
        .map(|ip| map.get(*ip).map_or("-".into(), text))
        .collect()
}

// tunnel 58
#[test]
fn tunnel_58_more_proxies_than_addresses_cycle() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let resolved = ["10.0.0.2", "10.0.0.1", "2001:db8::1"];
    assign(&mut map, 1, "a.example", &proxies(), Some(&resolved)).unwrap();
    let expected = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.1",
        "10.0.0.2",
        "2001:db8::1",
        "2001:db8::1",
        "2001:db8::1",
        "2001:db8::1",
    ];
    assert_eq!(reals(&map), expected);

    let reversed = ["2001:db8::1", "10.0.0.1", "10.0.0.2", "10.0.0.1"];
    assign(&mut map, 1, "a.example", &proxies(), Some(&reversed)).unwrap();
    assert_eq!(reals(&map), expected, "same set, same mapping");
}

// tunnel 58
#[test]
fn tunnel_58_of_many_addresses_the_first_four_are_used() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let resolved = [
        "10.0.0.6", "10.0.0.5", "10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1",
    ];
    assign(&mut map, 1, "a.example", &proxies(), Some(&resolved)).unwrap();
    assert_eq!(
        reals(&map)[..4],
        ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
    );
}

// tunnel 62
#[test]
fn tunnel_62_every_proxy_has_an_entry() {
    for (resolved, v4, v6) in [
        (&["10.0.0.1"][..], "10.0.0.1", "none"),
        (&["2001:db8::1"][..], "none", "2001:db8::1"),
        (&[][..], "none", "none"),
    ] {
        let mut map = AddressMap::new(Secret::from_seed([0; 32]));
        assign(&mut map, 1, "a.example", &proxies(), Some(resolved)).unwrap();
        assert_eq!(reals(&map), [v4, v4, v4, v4, v6, v6, v6, v6]);
    }
}

#[test]
fn failed_look_up_keeps_what_was_known() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    assign(&mut map, 1, "a.example", &proxies(), None).unwrap();
    assert_eq!(reals(&map), ["none"; 8]);

    assign(&mut map, 1, "a.example", &proxies(), Some(&["10.0.0.1"])).unwrap();
    assign(&mut map, 1, "a.example", &proxies(), None).unwrap();
    assert_eq!(reals(&map)[0], "10.0.0.1");
}

// tunnel 46
#[test]
fn tunnel_46_proxies_of_another_domain_begin_anew() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let all = proxies();
    assert_eq!(
        assign(&mut map, 1, "a.example", &all[..1], Some(&["10.0.0.1"])),
        Ok(Assigned::Kept)
    );
    assert_eq!(
        assign(&mut map, 1, "b.example", &all[1..2], Some(&["10.0.0.2"])),
        Ok(Assigned::Kept)
    );
    assert_eq!(
        assign(&mut map, 1, "c.example", &all[..1], Some(&["10.0.0.3"])),
        Ok(Assigned::Renumbered)
    );
    assert_eq!(reals(&map)[..2], ["10.0.0.3", "-"]);
}

// tunnel 46
#[test]
fn tunnel_46_names_announced_by_the_new_process_stay() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let all = proxies();
    let announce = |map: &mut AddressMap, domain: &str, at: usize, real: &str| {
        assign(map, 1, domain, &all[at..=at], Some(&[real]))
    };
    announce(&mut map, "a.example", 0, "10.0.0.1").unwrap();
    announce(&mut map, "b.example", 1, "10.0.0.2").unwrap();
    announce(&mut map, "c.example", 2, "10.0.0.3").unwrap();

    map.begin_generation();
    let kept = [
        // Nobody had this address before.
        announce(&mut map, "d.example", 3, "10.0.0.4"),
        // Announced before under the same name, as by a client that has roamed.
        announce(&mut map, "c.example", 2, "10.0.0.3"),
    ];
    assert_eq!(kept, [Ok(Assigned::Kept); 2]);
    assert_eq!(
        reals(&map)[..4],
        ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
    );
    assert_eq!(
        announce(&mut map, "e.example", 0, "10.0.0.5"),
        Ok(Assigned::Renumbered)
    );
    let expected = ["10.0.0.5", "-", "10.0.0.3", "10.0.0.4"];
    assert_eq!(reals(&map)[..4], expected);

    assert_eq!(
        announce(&mut map, "f.example", 1, "10.0.0.6"),
        Ok(Assigned::Kept),
        "its old owner has gone with the others"
    );
    assert_eq!(
        announce(&mut map, "g.example", 0, "10.0.0.7"),
        Ok(Assigned::Renumbered)
    );
    assert_eq!(reals(&map)[..4], ["10.0.0.7", "-", "-", "-"]);
}

#[test]
fn resources_share_the_addresses_of_a_domain() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let all = proxies();
    for resource in [2, 1, 2] {
        assign(&mut map, resource, "a.example", &all, Some(&["10.0.0.1"])).unwrap();
    }
    let owners = map.get(all[0]).unwrap().resources();
    assert_eq!(owners, [ResourceId::from_u128(1), ResourceId::from_u128(2)]);
}

#[test]
fn only_proxy_addresses_can_be_announced() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    for foreign in ["10.0.0.1", "100.64.0.1", "100.100.111.1", "::"] {
        let announced = [ips(&["100.96.0.1", foreign])].concat();
        let result = assign(&mut map, 1, "a.example", &announced, Some(&["10.0.0.1"]));
        assert_eq!(result, Err(AssignError::NotAProxy), "{foreign}");
    }
    assert_eq!(reals(&map), ["-"; 8]);
}

#[test]
fn names_do_not_stand_for_this_host_or_the_tunnel() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let resolved = [
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "100.64.0.1",
        "100.96.0.9",
        "::1",
        "::",
        "ff02::1",
        "::ffff:127.0.0.1",
        "fd00:2021:1111::5",
    ];
    assign(&mut map, 1, "a.example", &proxies(), Some(&resolved)).unwrap();
    assert_eq!(reals(&map), ["none"; 8]);
}

#[test]
fn number_of_entries_is_bounded() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let all: Vec<IpAddr> = ranges::proxy_addresses_v4()
        .take(MAX_ENTRIES + 1)
        .map(IpAddr::V4)
        .collect();
    assert_eq!(
        assign(&mut map, 1, "a.example", &all[1..], None),
        Ok(Assigned::Kept)
    );
    assert_eq!(
        assign(&mut map, 1, "a.example", &all[..1], None),
        Err(AssignError::TooMany)
    );
    assert_eq!(
        assign(&mut map, 1, "b.example", &all[1..2], None),
        Ok(Assigned::Renumbered)
    );
}

#[test]
fn entries_of_an_earlier_process_do_not_use_up_the_bound() {
    let mut map = AddressMap::new(Secret::from_seed([0; 32]));
    let all: Vec<IpAddr> = ranges::proxy_addresses_v4()
        .take(MAX_ENTRIES + 1)
        .map(IpAddr::V4)
        .collect();
    assign(&mut map, 1, "a.example", &all[1..], None).unwrap();

    map.begin_generation();
    assert_eq!(
        assign(&mut map, 1, "a.example", &all[1..3], None),
        Ok(Assigned::Kept)
    );
    assert_eq!(
        assign(&mut map, 1, "b.example", &all[..1], None),
        Ok(Assigned::Renumbered)
    );
    let known = all.iter().filter(|ip| map.get(**ip).is_some());
    assert_eq!(known.count(), 3);
    assert_eq!(
        assign(&mut map, 1, "c.example", &all[4..], None),
        Ok(Assigned::Kept)
    );
}
