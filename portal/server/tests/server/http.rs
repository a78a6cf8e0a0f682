//! Everything around the WebSocket: refusals, health, metrics, TLS.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    peer::{Peer, Place, query},
    portal::TestPortal,
};

async fn refusal(
    portal: &TestPortal,
    path: &str,
    query: &str,
    token: Option<&str>,
) -> (u16, Value) {
    let token = token.map(|token| (Place::Query, token));
    let address = portal.server.local_addr();
    let refused = Peer::connect(address, "client", path, query, token).await;
    let Err(response) = refused else {
        panic!("was let in");
    };
    let media_type = response.headers().get("content-type").unwrap().clone();
    assert_eq!(media_type, "application/problem+json");
    let body = response.body().clone().unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], response.status().as_u16());
    (response.status().as_u16(), body["code"].clone())
}

#[tokio::test]
async fn refusals_are_problem_documents() {
    let portal = TestPortal::start().await;
    let path = "/client/websocket";
    let query = query("a laptop", 1);
    let missing = refusal(&portal, path, &query, None).await;
    assert_eq!(missing, (401, "missing_token".into()));
    let empty = refusal(&portal, path, &query, Some("")).await;
    assert_eq!(empty, (401, "missing_token".into()));
    let unknown = refusal(&portal, path, &query, Some("client.x")).await;
    assert_eq!(unknown, (401, "invalid_token".into()));
    let of_gateway = refusal(&portal, path, &query, Some(&portal.gateway_token)).await;
    assert_eq!(of_gateway, (401, "invalid_token".into()));
    let no_key = refusal(&portal, path, "external_id=x", Some(&portal.client_token)).await;
    assert_eq!(no_key, (400, "invalid_connect_params".into()));
}

#[tokio::test]
async fn the_header_wins_over_the_query_and_whitespace_is_ignored() {
    let portal = TestPortal::start().await;
    let address = portal.server.local_addr();
    let with_bad_query = format!("token=bad&{}", query("a laptop", 1));
    let token = Some((Place::Header, portal.client_token.as_str()));
    let let_in = Peer::connect(
        address,
        "client",
        "/client/websocket",
        &with_bad_query,
        token,
    )
    .await;
    assert!(let_in.is_ok());
    let spaced = format!("{}%0A", portal.client_token);
    let token = Some((Place::Query, spaced.as_str()));
    let let_in = Peer::connect(
        address,
        "client",
        "/client/websocket",
        &query("x", 1),
        token,
    )
    .await;
    assert!(let_in.is_ok());
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A peer that closes TLS without its goodbye is none of this test's concern.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn health_metrics_and_plain_requests() {
    let portal = TestPortal::start().await;
    let mut gateway = Peer::gateway(&portal).await;
    gateway.push("init").await;
    let tcp = || TcpStream::connect(portal.server.local_addr());
    let health = get(tcp().await.unwrap(), "/healthz").await;
    assert!(
        health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"),
        "{health}"
    );
    let metrics = get(tcp().await.unwrap(), "/metrics").await;
    assert!(
        metrics.contains("portal_connected{kind=\"gateway\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("portal_connected{kind=\"client\"} 0"),
        "{metrics}"
    );
    let unknown = get(tcp().await.unwrap(), "/nothing").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
    let path = format!("/client/websocket?token={}", portal.client_token);
    let plain = get(tcp().await.unwrap(), &path).await;
    assert!(plain.starts_with("HTTP/1.1 400"), "{plain}");
}

fn test_file(name: &str) -> String {
    format!("{}/tests/server/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn tls_from_certificate_files() {
    let (certificate, key) = (test_file("localhost.crt"), test_file("localhost.key"));
    let lines = format!("tls_certificate = {certificate:?}\ntls_key = {key:?}");
    let portal = TestPortal::start_with(&lines).await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&certificate).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(portal.server.local_addr())
        .await
        .unwrap();
    // A connection that never shakes hands does not hold up others.
    let _silent = TcpStream::connect(portal.server.local_addr())
        .await
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = connector.connect(name, tcp).await.unwrap();
    let health = get(tls, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    portal.server.reload().await.unwrap();
}

#[tokio::test]
async fn connections_are_counted() {
    let portal = TestPortal::start_with("max_connections = 2").await;
    let gateway = Peer::gateway(&portal).await;
    let mut client = Peer::client(&portal).await;
    let third = TcpStream::connect(portal.server.local_addr())
        .await
        .unwrap();
    let health = tokio::spawn(get(third, "/healthz"));
    client.push("init").await;
    assert!(client.hears_nothing().await);
    assert!(!health.is_finished(), "waits for a place");
    drop(gateway);
    assert!(health.await.unwrap().starts_with("HTTP/1.1 200"));
}
