//! Reloads, restarts, tokens, shutdown.

use std::{fs, process::ExitCode};

use portal_server::config_file::ConfigFile;
use serde_json::json;

use crate::{peer::Peer, portal::TestPortal};

#[tokio::test]
async fn a_reload_pushes_the_differences() {
    let portal = TestPortal::start().await;
    let mut client = Peer::client(&portal).await;
    client.push("init").await;
    portal.edit(|text| {
        format!(
            "{text}\n[[resource]]\nname = \"Wiki\"\ntype = \"dns\"\naddress = \"wiki.example\"\nsite = \"Berlin\"\n\
             [[policy]]\ngroup = \"Everyone\"\nresource = \"Wiki\"\n"
        )
    });
    portal.server.reload().await.unwrap();
    let created = client.push("resource_created_or_updated").await;
    assert_eq!(created["address"], "wiki.example");
    portal.edit(|text| text.replace("wiki.example", "docs.example"));
    portal.server.reload().await.unwrap();
    assert_eq!(client.push("resource_deleted").await, created["id"]);
    let updated = client.push("resource_created_or_updated").await;
    assert_eq!(updated["address"], "docs.example");
}

#[tokio::test]
async fn a_mistake_is_named_and_the_old_configuration_stays() {
    let portal = TestPortal::start().await;
    let mut client = Peer::client(&portal).await;
    let init = client.push("init").await;
    portal.edit(|text| text.replace("site = \"Berlin\"", "site = \"Bärlin\""));
    let error = portal.server.reload().await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains("portal.toml:"), "{message}");
    assert!(
        message.contains("no site with the name 'Bärlin'"),
        "{message}"
    );
    assert!(message.contains("use one of: Berlin"), "{message}");
    assert!(client.hears_nothing().await);
    let mut again = Peer::client(&portal).await;
    assert_eq!(again.push("init").await, init);
}

#[tokio::test]
async fn a_removed_token_ends_its_session_and_is_refused() {
    let portal = TestPortal::start().await;
    let mut client = Peer::client(&portal).await;
    client.push("init").await;
    let hash = portal_core::token::TokenHash::of(&portal.client_token).to_string();
    portal.edit(|text| text.replace(&hash, &"0".repeat(64)));
    portal.server.reload().await.unwrap();
    let disconnect = client.push("disconnect").await;
    assert_eq!(disconnect, json!({"reason": "token_expired"}));
    assert!(client.closed().await.is_some());
    let address = portal.server.local_addr();
    let token = Some((crate::peer::Place::Query, portal.client_token.as_str()));
    let query = crate::peer::query("x", 1);
    let refused = Peer::connect(address, "client", "/client/websocket", &query, token).await;
    assert_eq!(refused.err().unwrap().status(), 401);
}

#[tokio::test]
async fn a_restart_keeps_addresses_secrets_and_authorizations() {
    let portal = TestPortal::start().await;
    let mut gateway = Peer::gateway(&portal).await;
    let gateway_before = gateway.push("init").await;
    let mut client = Peer::client(&portal).await;
    let before = client.push("init").await;
    let wish = json!({"resource_id": before["resources"][0]["id"], "connected_gateway_ids": []});
    client.send("create_flow", wish.clone()).await;
    let ask = gateway.push("authorize_flow").await;

    let portal = portal.restart().await;
    assert_eq!(u16::from(client.closed().await.unwrap().code), 1012);
    let mut gateway = Peer::gateway(&portal).await;
    let gateway_after = gateway.push("init").await;
    assert_eq!(gateway_after["interface"], gateway_before["interface"]);
    let listed = &gateway_after["authorizations"][0];
    assert_eq!(listed["client_id"], ask["client"]["id"]);
    let mut client = Peer::client(&portal).await;
    let after = client.push("init").await;
    assert_eq!(after["interface"], before["interface"]);
    assert_eq!(after["resources"], before["resources"]);
    client.send("create_flow", wish).await;
    let again = gateway.push("authorize_flow").await;
    assert_eq!(again["client"], ask["client"]);
    assert_eq!(again["flow_id"], ask["flow_id"]);
    assert_eq!(
        again["gateway_ice_credentials"],
        ask["gateway_ice_credentials"]
    );
}

#[tokio::test]
async fn a_token_that_is_created_works_after_the_reload() {
    let portal = TestPortal::start().await;
    let path = portal.path();
    let run = |arguments: &[&str]| {
        let fixed = [
            "firezone-portal",
            "--config",
            path.to_str().unwrap(),
            "token",
            "create",
        ];
        portal_server::run(fixed.iter().chain(arguments))
    };
    let before = fs::read_to_string(&path).unwrap();
    let created = run(&[
        "--type",
        "client",
        "--name",
        "Jo's \"phone\"",
        "--person",
        "Jo",
        "--expires",
        "2037-01-31",
    ]);
    assert_eq!(created, ExitCode::SUCCESS);
    let config = ConfigFile::read(&path).unwrap();
    assert_eq!(config.portal.tokens.len(), 4);
    assert!(
        config
            .portal
            .tokens
            .values()
            .any(|token| token.name == "Jo's \"phone\"")
    );

    fs::write(&path, &before).unwrap();
    for bad in [
        &["--type", "client", "--name", "x"][..],
        &["--type", "client", "--name", "x", "--person", "Nobody"],
        &["--type", "gateway", "--name", "x", "--person", "Jo"],
        &["--type", "relay", "--name", "x", "--site", "Berlin"],
        &["--type", "relay", "--name", "x", "--expires", "tomorrow"],
        &["--type", "toaster", "--name", "x"],
    ] {
        assert_ne!(run(bad), ExitCode::SUCCESS, "{bad:?}");
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        before,
        "a refused token changes nothing"
    );
    assert_eq!(
        run(&["--type", "relay", "--name", "x", "--print"]),
        ExitCode::SUCCESS
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn check_finds_mistakes_and_a_missing_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portal.toml");
    let check = || portal_server::run(["firezone-portal", "-c", path.to_str().unwrap(), "check"]);
    assert_ne!(check(), ExitCode::SUCCESS);
    fs::write(&path, include_str!("../../portal.example.toml")).unwrap();
    assert_eq!(check(), ExitCode::SUCCESS);
    fs::write(&path, "[server]\nlisten = \"nowhere\"\n").unwrap();
    assert_ne!(check(), ExitCode::SUCCESS);
}
