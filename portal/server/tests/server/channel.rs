//! The protocol, end to end.

use serde_json::json;

use crate::{
    peer::{Peer, Place, query},
    portal::TestPortal,
};

// portal 88, portal 89, portal 96
#[tokio::test]
async fn portal_88_89_components_of_2025_meet() {
    let portal = TestPortal::start().await;
    let mut relay = Peer::relay(&portal).await;
    assert_eq!(relay.push("init").await, json!({}));
    let mut gateway = Peer::gateway(&portal).await;
    let init = gateway.push("init").await;
    assert_eq!(init["relays"][0]["addr"], "203.0.113.5:3479");
    assert_eq!(init["relays"][1]["addr"], "[2001:db8::5]:3479");
    let mut client = Peer::client(&portal).await;
    let init = client.push("init").await;
    assert_eq!(
        init["interface"]["upstream_dns"][0]["address"],
        "9.9.9.9:53"
    );
    let resource = &init["resources"][0];
    assert_eq!(resource["address"], "10.40.0.0/16");

    let wish = json!({"resource_id": resource["id"], "connected_gateway_ids": []});
    client.send("create_flow", wish).await;
    let ask = gateway.push("authorize_flow").await;
    assert!(client.hears_nothing().await);
    let reference = gateway
        .send("flow_authorized", json!({"ref": ask["ref"]}))
        .await;
    let reply = gateway.frame().await;
    assert_eq!(reply["ref"], reference);
    assert_eq!(reply["payload"]["status"], "ok");
    let created = client.push("flow_created").await;
    assert_eq!(created["preshared_key"], ask["client"]["preshared_key"]);
    assert_eq!(
        created["client_ice_credentials"],
        ask["client_ice_credentials"]
    );

    let line = "candidate:842163049 1 udp 2130706175 192.0.2.44 52625 typ host";
    let message = json!({"gateway_ids": [created["gateway_id"]], "candidates": [line]});
    client.send("broadcast_ice_candidates", message).await;
    assert_eq!(
        gateway.push("ice_candidates").await["client_id"],
        ask["client"]["id"]
    );
    let message = json!({"client_ids": [ask["client"]["id"]], "candidates": [line]});
    gateway
        .send("broadcast_invalidated_ice_candidates", message)
        .await;
    let invalidated = client.push("invalidate_ice_candidates").await;
    assert_eq!(invalidated["candidates"], json!([line]));

    let reference = client.send_on("phoenix", "heartbeat", json!({})).await;
    assert_eq!(
        client.frame().await,
        json!({"topic": "phoenix", "event": "phx_reply", "ref": reference, "payload": {"status": "ok", "response": {}}})
    );
}

#[tokio::test]
async fn components_of_2026_meet() {
    let portal = TestPortal::start().await;
    let token = (Place::Header, portal.gateway_token.as_str());
    let path = "/gateway/v2/websocket";
    let mut gateway = Peer::join(&portal, "gateway", path, &query("a gateway", 2), token).await;
    gateway.push("init").await;
    gateway
        .send("set_snownet_capabilities", json!({"iceless": true}))
        .await;
    let token = (Place::Header, portal.client_token.as_str());
    let path = "/client/v2/websocket";
    let mut client = Peer::join(&portal, "client", path, &query("a laptop", 1), token).await;
    let init = client.push("init").await;
    assert!(init["flow_logs"]["api_url"].is_string());
    client
        .send("set_snownet_capabilities", json!({"iceless": true}))
        .await;
    client.send("no_relays", json!({})).await;
    let presence = client.push("relays_presence").await;
    assert_eq!(presence, json!({"disconnected_ids": [], "connected": []}));
    let wish = json!({"resource_id": init["resources"][0]["id"], "connected_gateway_ids": []});
    client.send("request_authorization", wish).await;
    let ask = gateway.push("create_authorization").await;
    assert!(ask["flow_logs_ingest_token"].is_string());
    gateway
        .send("authorization_created", json!({"ref": ask["ref"]}))
        .await;
    gateway.frame().await;
    let created = client.push("authorization_created").await;
    assert!(created["gateway_ipv4"].is_string() && created["gateway_ipv6"].is_string());
    assert_eq!(created["use_iceless"], false);
}

#[tokio::test]
async fn both_generations_meet_each_other() {
    let portal = TestPortal::start().await;
    let mut gateway = Peer::gateway(&portal).await;
    gateway.push("init").await;
    let token = (Place::Query, portal.client_token.as_str());
    let path = "/client/v2/websocket";
    let mut client = Peer::join(&portal, "client", path, &query("a laptop", 1), token).await;
    let init = client.push("init").await;
    let wish = json!({"resource_id": init["resources"][0]["id"]});
    client.send("request_authorization", wish).await;
    let ask = gateway.push("authorize_flow").await;
    gateway
        .send("flow_authorized", json!({"ref": ask["ref"]}))
        .await;
    client.push("authorization_created").await;
}

// portal 95
#[tokio::test]
async fn portal_95_refusals_keep_the_channel() {
    let portal = TestPortal::start().await;
    let mut client = Peer::client(&portal).await;
    client.push("init").await;
    for (topic, event, reason) in [
        ("client", "made_up", "unknown_message"),
        ("gateway", "made_up", "unmatched topic"),
    ] {
        let reference = client.send_on(topic, event, json!({})).await;
        let expected = json!({"topic": topic, "event": "phx_reply", "ref": reference,
            "payload": {"status": "error", "response": {"reason": reason}}});
        assert_eq!(client.frame().await, expected);
    }
    client.send_on("phoenix", "heartbeat", json!({})).await;
    assert_eq!(client.frame().await["payload"]["status"], "ok");
}

#[tokio::test]
async fn relays_that_come_later_are_announced() {
    let portal = TestPortal::start().await;
    let mut client = Peer::client(&portal).await;
    assert_eq!(client.push("init").await["relays"], json!([]));
    let relay = Peer::relay(&portal).await;
    let presence = client.push("relays_presence").await;
    assert_eq!(presence["connected"].as_array().unwrap().len(), 2);
    let id = presence["connected"][0]["id"].clone();
    assert_eq!(id, "6d98bf17-b045-4f12-8e42-b9c49596c11f");
    drop(relay);
    let presence = client.push("relays_presence").await;
    assert_eq!(presence, json!({"disconnected_ids": [id], "connected": []}));
}

#[tokio::test]
async fn malformed_frames_end_the_socket_and_odd_ones_do_not() {
    use tokio_tungstenite::tungstenite::Message;
    let portal = TestPortal::start().await;
    let mut client = Peer::client(&portal).await;
    client.push("init").await;
    client.send_message(Message::binary(vec![1, 2, 3])).await;
    client.send_message(Message::Ping(vec![].into())).await;
    client.send_on("phoenix", "heartbeat", json!({})).await;
    assert_eq!(client.frame().await["payload"]["status"], "ok");
    client
        .send_text(r#"{"topic":"client","event":"no_relays","payload":{}}"#)
        .await;
    assert!(client.closed().await.is_some());

    let mut client = Peer::client(&portal).await;
    client.push("init").await;
    client.send_text("garbage").await;
    assert!(client.closed().await.is_some());

    let mut client = Peer::client(&portal).await;
    client.push("init").await;
    client.send_text(&" ".repeat(1024 * 1024)).await;
    client.closed().await;
}
