//! The real program, and the real channel that our components use.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use connlib_messages::{Key, Secret, client, gateway, relay};
use phoenix_channel::{
    Channel, Event, LoginUrl, Outgoing, Token, driver::Options, login::DeviceInfo,
};
use tokio::time::timeout;

use crate::{peer::Peer, portal::TestPortal};

const PATIENCE: Duration = Duration::from_secs(10);

fn options(join_payload: serde_json::Value) -> Options {
    Options {
        join_payload,
        ..Options::new("Debian/12 connlib/1.5.0 (x86_64)".to_owned())
    }
}

fn public_key(key: u8) -> Vec<(String, String)> {
    vec![("public_key".to_owned(), Key([key; 32]).to_string())]
}

async fn message(channel: &mut Channel) -> phoenix_channel::Message {
    loop {
        let event = timeout(PATIENCE, channel.next())
            .await
            .expect("in time")
            .unwrap();
        match event {
            Event::Message(message) => return message,
            Event::Connected => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn our_own_components_meet() {
    let portal = TestPortal::start().await;
    let url = format!("ws://{}/", portal.server.local_addr());
    let token = |text: &str| Some(Token::new(text));

    let login = LoginUrl::relay(
        &url,
        token(&portal.relay_token),
        None,
        3478,
        Some(std::net::Ipv4Addr::new(203, 0, 113, 5)),
        None,
    );
    let join = relay::Join {
        stamp_secret: Secret::from("7d".repeat(32)),
    };
    let join = serde_json::to_value(&join).unwrap();
    let mut relay = Channel::new(login.unwrap(), options(join)).unwrap();
    relay.connect(vec![]);
    let init: relay::FromPortal = message(&mut relay).await.parse().unwrap();
    assert_eq!(init, relay::FromPortal::Init);

    let login = LoginUrl::gateway(&url, token(&portal.gateway_token), "gateway id", "gw").unwrap();
    let mut gateway = Channel::new(login, options(serde_json::Value::Null)).unwrap();
    gateway.connect(public_key(2));
    let init: gateway::FromPortal = message(&mut gateway).await.parse().unwrap();
    assert!(matches!(init, gateway::FromPortal::Init(init) if init.relays.len() == 1));

    let device = DeviceInfo::default();
    let login = LoginUrl::client(
        &url,
        token(&portal.client_token),
        "client id",
        "laptop",
        device,
    );
    let mut client = Channel::new(login.unwrap(), options(serde_json::Value::Null)).unwrap();
    client.connect(public_key(1));
    let init: client::FromPortal = message(&mut client).await.parse().unwrap();
    let client::FromPortal::Init(init) = init else {
        panic!("not init");
    };
    let wish = client::ToPortal::CreateFlow(client::CreateFlow {
        resource_id: init.resources[0].id(),
        connected_gateway_ids: vec![],
    });
    client.send(Outgoing::from_message(&wish).unwrap()).unwrap();
    // A channel only moves while somebody polls it.
    let asked = async {
        tokio::select! {
            message = message(&mut gateway) => message,
            message = message(&mut client) => panic!("early {message:?}"),
        }
    };
    let ask: gateway::FromPortal = asked.await.parse().unwrap();
    let gateway::FromPortal::AuthorizeFlow(ask) = ask else {
        panic!("not authorize_flow");
    };
    let done = gateway::ToPortal::FlowAuthorized(gateway::FlowAuthorized {
        reference: ask.reference,
    });
    gateway
        .send(Outgoing::from_message(&done).unwrap())
        .unwrap();
    let created = async {
        tokio::select! {
            message = message(&mut client) => message,
            message = message(&mut gateway) => panic!("unexpected {message:?}"),
        }
    };
    let created: client::FromPortal = created.await.parse().unwrap();
    let client::FromPortal::FlowCreated(created) = created else {
        panic!("not flow_created");
    };
    assert_eq!(created.preshared_key, ask.client.preshared_key);
    assert_eq!(created.client_ice_credentials, ask.client_ice_credentials);
}

#[tokio::test]
async fn our_own_channel_stops_at_an_unknown_token() {
    let portal = TestPortal::start().await;
    let url = format!("ws://{}/", portal.server.local_addr());
    let login = LoginUrl::gateway(&url, Some(Token::new("gateway.unknown")), "id", "gw").unwrap();
    let mut channel = Channel::new(login, options(serde_json::Value::Null)).unwrap();
    channel.connect(public_key(2));
    let error = timeout(PATIENCE, channel.next())
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.requires_sign_in(), "{error}");
}

/// The program; killed when the test ends early.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone when the test succeeded.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(status.success());
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_program_reloads_on_change_and_on_sighup_and_ends_on_sigterm() {
    // Takes the configuration and tokens of a portal that is not used, and a port that was just free.
    let mut portal = TestPortal::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    portal.edit(|text| {
        text.replace("127.0.0.1:0", &address.to_string())
            .replace("portal.sqlite", ":memory:")
    });
    let program = Command::new(env!("CARGO_BIN_EXE_firezone-portal"))
        .args(["--log-json", "--config"])
        .arg(portal.path())
        .stdout(Stdio::null())
        .spawn();
    let mut program = Process(program.unwrap());
    let start = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    portal.address = address;
    let mut client = Peer::client(&portal).await;
    client.push("init").await;
    portal.edit(|text| text.replace("\"9.9.9.9\"", "\"9.9.9.10\""));
    let changed = client.push("config_changed").await;
    assert_eq!(
        changed["interface"]["upstream_dns"][0]["address"],
        "9.9.9.10:53"
    );
    portal.edit(|text| text.replace("10.40.0.0/16", "10.40.0.1/16"));
    program.signal("-HUP");
    assert!(client.hears_nothing().await, "a mistake changes nothing");
    fs::write(
        portal.path(),
        fs::read_to_string(portal.path())
            .unwrap()
            .replace("10.40.0.1/16", "10.41.0.0/16"),
    )
    .unwrap();
    program.signal("-HUP");
    client.push("resource_deleted").await;
    client.push("resource_created_or_updated").await;
    program.signal("-TERM");
    assert_eq!(u16::from(client.closed().await.unwrap().code), 1012);
    assert_eq!(program.exit_code().await, Some(0));
}
