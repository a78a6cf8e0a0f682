//! A portal with a configuration of its own.

use std::{fs, net::SocketAddr, path::PathBuf};

use portal_core::token::Component;
use portal_server::{config_file::ConfigFile, server::Server, token_command::NewToken};
use tempfile::TempDir;

pub(crate) struct TestPortal {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) client_token: String,
    pub(crate) gateway_token: String,
    pub(crate) relay_token: String,
    directory: TempDir,
}

const BASE: &str = r#"
[server]
listen = "127.0.0.1:0"
database = "portal.sqlite"

[dns]
servers = ["9.9.9.9"]

[[site]]
name = "Berlin"

[[resource]]
name = "Lab"
type = "cidr"
address = "10.40.0.0/16"
site = "Berlin"

[[person]]
name = "Jo"

[[policy]]
group = "Everyone"
resource = "Lab"
"#;

impl TestPortal {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// `server_lines` go into `[server]`.
    pub(crate) async fn start_with(server_lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let new =
            |component, person, site| NewToken::generate(component, "test", person, site, None);
        let client = new(Component::Client, Some("Jo"), None);
        let gateway = new(Component::Gateway, None, Some("Berlin"));
        let relay = new(Component::Relay, None, None);
        let base = BASE.replace("[dns]", &format!("{server_lines}\n[dns]"));
        let text = format!(
            "{base}\n{}\n{}\n{}",
            client.block, gateway.block, relay.block
        );
        let path = directory.path().join("portal.toml");
        fs::write(&path, text).unwrap();
        let config = ConfigFile::read(&path).unwrap();
        let server = Server::start(&path, config).await.unwrap();
        Self {
            address: server.local_addr(),
            server,
            client_token: client.token.expose().to_owned(),
            gateway_token: gateway.token.expose().to_owned(),
            relay_token: relay.token.expose().to_owned(),
            directory,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("portal.toml")
    }

    /// Changes the file, without telling the server.
    pub(crate) fn edit(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.path()).unwrap();
        fs::write(self.path(), change(text)).unwrap();
    }

    /// Ends the server and starts another with the same file and records.
    pub(crate) async fn restart(mut self) -> Self {
        let path = self.path();
        self.server.shutdown().await;
        let config = ConfigFile::read(&path).unwrap();
        self.server = Server::start(&path, config).await.unwrap();
        self.address = self.server.local_addr();
        self
    }
}
