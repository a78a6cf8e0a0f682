//! Real sockets through the test network. A plain `main`, since namespaces must be entered before threads exist and
//! the worker is this executable, started again.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use testbed::{
    EdgeKindSpec, EdgeSpec, Host, HostSpec, InterfaceSpec, LinkSpec, RouteSpec, Testbed, Topology,
};

const SERVER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn main() -> ExitCode {
    if let Some(code) = testbed::run_worker_if_asked() {
        return code;
    }
    if let Err(error) = testbed::isolate() {
        println!("cannot run: {error}");
        return ExitCode::SUCCESS;
    }
    let testbed = match Testbed::start(&topology()) {
        Ok(testbed) => testbed,
        Err(error) => {
            println!("testbed: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let tests: [(&str, Test); 6] = [
        ("udp_through_a_nat_and_back", udp_through_a_nat_and_back),
        ("tcp_transfers_a_megabyte", tcp_transfers_a_megabyte),
        ("ipv6_is_not_translated", ipv6_is_not_translated),
        ("blocked_hosts_hear_nothing", blocked_hosts_hear_nothing),
        ("processes_see_their_own_etc", processes_see_their_own_etc),
        (
            "an_unplugged_host_comes_back_elsewhere",
            an_unplugged_host_comes_back_elsewhere,
        ),
    ];
    let mut failed = 0;
    for (name, test) in &tests {
        match test(&testbed) {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED: {error:#}");
            }
        }
    }
    println!("{} passed, {failed} failed", tests.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

type Test = fn(&Testbed) -> Result<()>;

fn topology() -> Topology {
    let default = vec![RouteSpec::default_v4(), RouteSpec::default_v6()];
    let interface = |v4, v6, edge: Option<&str>, latency| InterfaceSpec {
        device: "eth0".into(),
        network: "internet".into(),
        edge: edge.map(str::to_owned),
        v4: Some(v4),
        v6: Some(v6),
        routes: default.clone(),
        link: LinkSpec {
            latency: Duration::from_millis(latency),
            ..LinkSpec::default()
        },
        ..InterfaceSpec::default()
    };
    let host = |name: &str, interface, etc| HostSpec {
        name: name.into(),
        interfaces: vec![interface],
        etc,
        forwarding: false,
    };
    let inner_v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
    let etc = BTreeMap::from([(
        "resolv.conf".to_owned(),
        "nameserver 192.0.2.53\n".to_owned(),
    )]);
    Topology {
        seed: 1,
        edges: vec![EdgeSpec {
            name: "nat".into(),
            network: "internet".into(),
            kind: EdgeKindSpec::Symmetric,
            public_v4: Some(NAT),
            idle_expiry: Duration::from_secs(120),
        }],
        hosts: vec![
            host(
                "server",
                interface(SERVER_V4, SERVER_V6, None, 1),
                BTreeMap::new(),
            ),
            host(
                "client",
                interface(Ipv4Addr::new(192, 168, 1, 2), inner_v6, Some("nat"), 10),
                etc,
            ),
        ],
        blocked: Vec::new(),
    }
}

/// A UDP server that answers one datagram with what it saw of its sender.
fn udp_exchange(testbed: &Testbed, server: SocketAddr) -> Result<(SocketAddr, Duration)> {
    let bind = |host: &Host, address: SocketAddr| {
        host.run(move || {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok(socket)
        })
    };
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let listening = bind(testbed.host("server")?, server)?;
    let client = bind(testbed.host("client")?, any)?;

    let started = Instant::now();
    client.send_to(b"ping", server)?;
    let mut buffer = [0; 16];
    let (length, seen) = listening.recv_from(&mut buffer).context("no request")?;
    listening.send_to(&buffer[..length], seen)?;
    let (_, from) = client.recv_from(&mut buffer).context("no answer")?;
    ensure!(from == server, "answer from {from}");
    Ok((seen, started.elapsed()))
}

fn udp_through_a_nat_and_back(testbed: &Testbed) -> Result<()> {
    let (seen, took) = udp_exchange(testbed, (SERVER_V4, 7000).into())?;

    ensure!(seen.ip() == NAT, "server saw {seen}");
    ensure!(took >= Duration::from_millis(22), "round trip of {took:?}");
    Ok(())
}

fn ipv6_is_not_translated(testbed: &Testbed) -> Result<()> {
    let (seen, _) = udp_exchange(testbed, (SERVER_V6, 7001).into())?;

    ensure!(
        seen.ip().to_string() == "2001:db8:1::2",
        "server saw {seen}"
    );
    Ok(())
}

fn an_unplugged_host_comes_back_elsewhere(testbed: &Testbed) -> Result<()> {
    testbed.unplug("client")?;
    let unplugged = udp_exchange(testbed, (SERVER_V4, 7002).into());
    ensure!(unplugged.is_err(), "traffic without a cable");

    let new_v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 3);
    testbed.plug("client", Some(Ipv4Addr::new(192, 168, 1, 3)), Some(new_v6))?;
    let (seen, _) = udp_exchange(testbed, (SERVER_V4, 7003).into())?;
    ensure!(seen.ip() == NAT, "server saw {seen}");
    let (seen, _) = udp_exchange(testbed, (SERVER_V6, 7004).into())?;
    ensure!(seen.ip() == new_v6, "server saw {seen}");
    Ok(())
}

fn tcp_transfers_a_megabyte(testbed: &Testbed) -> Result<()> {
    let listener = testbed
        .host("server")?
        .run(|| Ok(TcpListener::bind((SERVER_V4, 8000))?))?;
    let server = std::thread::spawn(move || -> Result<usize> {
        let (mut stream, _) = listener.accept()?;
        let mut all = Vec::new();
        Ok(stream.read_to_end(&mut all)?)
    });

    let mut stream = testbed
        .host("client")?
        .run(|| Ok(TcpStream::connect((SERVER_V4, 8000))?))?;
    stream.write_all(&vec![7; 1 << 20])?;
    drop(stream);

    let received = server
        .join()
        .map_err(|_| anyhow::anyhow!("server panicked"))??;
    ensure!(received == 1 << 20, "{received} bytes arrived");
    Ok(())
}

fn blocked_hosts_hear_nothing(testbed: &Testbed) -> Result<()> {
    testbed.block("client", "server")?;
    ensure!(
        udp_exchange(testbed, (SERVER_V4, 7002).into()).is_err(),
        "blocked, yet answered"
    );
    testbed.unblock("server", "client")?;
    udp_exchange(testbed, (SERVER_V4, 7003).into())?;
    let (packets, _) = testbed.delivered("client", "server")?;
    ensure!(packets > 0);
    ensure!(testbed.block("client", "nobody").is_err());
    Ok(())
}

fn processes_see_their_own_etc(testbed: &Testbed) -> Result<()> {
    let cat = |host: &str, file: &str| -> Result<String> {
        let output = testbed.host(host)?.command("cat").arg(file).output()?;
        Ok(String::from_utf8(output.stdout)?)
    };

    ensure!(cat("client", "/etc/resolv.conf")? == "nameserver 192.0.2.53\n");
    ensure!(cat("client", "/etc/passwd")? == std::fs::read_to_string("/etc/passwd")?);
    let machine = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    ensure!(cat("server", "/etc/resolv.conf")? == machine);
    Ok(())
}
