//! Configuration and tokens of the demo's portal, made with the portal's own command as an administrator does.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    role::ROLE_ARGUMENT,
    scenario::{self, Scenario},
};

/// The portal's files.
#[derive(Debug)]
pub struct PortalFiles {
    config: PathBuf,
    relay_token: String,
    gateway_token: String,
    client_token: String,
}

impl PortalFiles {
    /// Writes a configuration into `directory` and makes a token for each component.
    ///
    /// # Errors
    ///
    /// If a file cannot be written or the portal's command refuses.
    pub fn create(directory: &Path, scenario: Scenario) -> Result<Self> {
        Self::with_configuration(directory, &configuration(directory, scenario))
    }

    /// As [`Self::create`], with a configuration of the caller. It has a site `Office` and a person `Ada`.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn with_configuration(directory: &Path, configuration: &str) -> Result<Self> {
        let config = directory.join("portal.toml");
        fs::write(&config, configuration)?;
        Ok(Self {
            relay_token: create_token(&config, &["--type", "relay", "--name", "Relay"])?,
            gateway_token: create_token(
                &config,
                &["--type", "gateway", "--name", "Gateway", "--site", "Office"],
            )?,
            client_token: create_token(
                &config,
                &["--type", "client", "--name", "Laptop", "--person", "Ada"],
            )?,
            config,
        })
    }

    /// A token for another device or another person.
    ///
    /// # Errors
    ///
    /// If the portal's command refuses, for example because the configuration does not know the person.
    pub fn create_client_token(&self, name: &str, person: &str) -> Result<String> {
        create_token(
            &self.config,
            &["--type", "client", "--name", name, "--person", person],
        )
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The relay's token.
    pub fn relay_token(&self) -> &str {
        &self.relay_token
    }

    /// The gateway's token.
    pub fn gateway_token(&self) -> &str {
        &self.gateway_token
    }

    /// The client's token.
    pub fn client_token(&self) -> &str {
        &self.client_token
    }
}

fn create_token(config: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .args([ROLE_ARGUMENT, "portal", "token", "create"])
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()?;
    ensure!(
        output.status.success(),
        "cannot make a token: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let token = String::from_utf8(output.stdout).context("token is not text")?;
    Ok(token.trim().to_owned())
}

fn configuration(directory: &Path, scenario: Scenario) -> String {
    let listen = SocketAddr::new(scenario.portal_address(), scenario::PORTAL_PORT);
    let database = directory.join("portal.sqlite");
    let resource = |name: &str, kind: &str, address: &str, filters: &str| {
        format!(
            "[[resource]]\nname = \"{name}\"\ntype = \"{kind}\"\naddress = \"{address}\"\nsite = \"Office\"\n{filters}\n\
             [[policy]]\ngroup = \"Everyone\"\nresource = \"{name}\"\n\n"
        )
    };
    // Of the private network only web pages and ping: the database is not for everybody.
    let filters = "filters = [\"tcp:80\", \"icmp\"]\n";
    [
        format!("[server]\nlisten = \"{listen}\"\ndatabase = {:?}\n\n", database),
        "[account]\nname = \"demo\"\n\n[[site]]\nname = \"Office\"\n\n[[person]]\nname = \"Ada\"\n\n"
            .to_owned(),
        resource("App", "dns", scenario::APP_NAME, ""),
        resource("Office IPv4", "cidr", scenario::OFFICE_V4, filters),
        resource("Office IPv6", "cidr", scenario::OFFICE_V6, filters),
    ]
    .concat()
}
