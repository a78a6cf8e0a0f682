//! The portal session (relay spec §3.2): join with the stamp secret, stay joined.
//!
//! A relay serves before the portal is reached and during outages: this session only tells the portal that the relay
//! exists and how credentials are to be minted.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result, bail};
use connlib_messages::{Secret, relay};
use phoenix_channel::{
    Channel, Component, Event, FatalError, LoginUrl, Options, Token, TokenPlacement, display_name,
};
use relay_core::{Config, Family, StampSecret};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{cli::Cli, platform, shared::Shared};

/// Where and as whom to log in.
pub(crate) fn login(cli: &Cli, config: &Config, token: Token) -> Result<LoginUrl> {
    let url = cli
        .api_url
        .as_deref()
        .context("no portal: give --api-url, or --standalone")?;
    let host_name = platform::host_name();
    let name = display_name(cli.name.as_deref(), host_name.as_deref(), Uuid::new_v4());
    let (v4, v6) = addresses(config);
    let login = LoginUrl::relay(url, Some(token), Some(&name), config.listen_port, v4, v6)
        .with_context(|| format!("--api-url {url}"))?;
    if !login.is_tls() && !cli.insecure_portal && is_public(&login) {
        bail!(
            "--api-url {url} would send token and secret unencrypted over the internet; \
             use wss://, or --insecure-portal"
        );
    }
    let variable = TokenPlacement::ENVIRONMENT;
    let placement = std::env::var(variable).unwrap_or_default();
    let placement = TokenPlacement::from_flag(&placement)
        .with_context(|| format!("{variable} is neither true nor false"))?;
    Ok(login.with_token_placement(placement))
}

fn addresses(config: &Config) -> (Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>) {
    let v4 = match config.public.get(Family::V4) {
        Some(IpAddr::V4(v4)) => Some(v4),
        Some(IpAddr::V6(_)) | None => None,
    };
    let v6 = match config.public.get(Family::V6) {
        Some(IpAddr::V6(v6)) => Some(v6),
        Some(IpAddr::V4(_)) | None => None,
    };
    (v4, v6)
}

/// Whether the portal may be on the other side of the internet. Names without a dot belong to a local network.
fn is_public(login: &LoginUrl) -> bool {
    match login.host_address() {
        None => login.host().contains('.'),
        Some(IpAddr::V4(ip)) => {
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_documentation())
        }
        Some(IpAddr::V6(ip)) => {
            let is_documentation = ip.segments()[..2] == [0x2001, 0xdb8];
            !(ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || is_documentation)
        }
    }
}

/// Stays joined until `leave` says otherwise; an error is one that a retry cannot mend.
pub(crate) async fn run(
    login: LoginUrl,
    secret: &StampSecret,
    shared: Arc<Shared>,
    mut leave: oneshot::Receiver<()>,
) -> Result<(), FatalError> {
    let options =
        options(secret).map_err(|error| FatalError::AuthenticationFailed(error.to_string()))?;
    let mut channel = match Channel::new(login, options) {
        Ok(channel) => channel,
        Err(error) => {
            return Err(FatalError::AuthenticationFailed(error.to_string()));
        }
    };
    channel.connect(Vec::new());
    let mut is_leaving = false;
    let result = loop {
        tokio::select! {
            event = channel.next() => match event {
                Ok(Event::Connected) => {
                    tracing::info!("Joined the portal");
                    shared.set_joined(true);
                }
                Ok(Event::Message(message)) => log_message(&message.event),
                Ok(Event::Hiccup { delay, error, .. }) => {
                    shared.set_joined(false);
                    tracing::warn!(%error, ?delay, "Not connected to the portal; will retry");
                }
                Ok(Event::Closed) => break Ok(()),
                Err(error) => break Err(error),
            },
            _ = &mut leave, if !is_leaving => {
                is_leaving = true;
                if channel.close().is_err() {
                    break Ok(());
                }
            }
        }
    };
    shared.set_joined(false);
    result
}

/// The same secret at every join of this process: by it the portal knows the relay again.
fn options(secret: &StampSecret) -> Result<Options> {
    let version = env!("CARGO_PKG_VERSION");
    let join = relay::Join {
        stamp_secret: Secret::new(secret.expose()),
    };
    Ok(Options {
        join_payload: serde_json::to_value(join)?,
        ..Options::for_program(Component::Relay, version)?
    })
}

fn log_message(event: &str) {
    match event {
        "init" => tracing::debug!("The portal knows this relay"),
        _ => tracing::debug!(event, "Message of the portal ignored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_public_url(url: &str) -> bool {
        let ip = Some(std::net::Ipv4Addr::LOCALHOST);
        is_public(&LoginUrl::relay(url, None, None, 1, ip, None).unwrap())
    }

    // relay C-51
    #[test]
    fn relay_51_joins_with_the_secret_and_outlasts_half_an_hour() {
        let secret = StampSecret::random(&mut rand::rng());
        let channel = options(&secret).unwrap().channel("relay");
        let join = serde_json::json!({"stamp_secret": secret.expose()});
        assert_eq!(channel.join_payload, join);
        let half_an_hour = std::time::Duration::from_secs(30 * 60);
        assert!(channel.budget.is_none_or(|budget| budget > half_an_hour));
    }

    #[test]
    fn unencrypted_only_where_nobody_listens() {
        for url in [
            "ws://127.0.0.1:8080",
            "ws://[::1]:8080",
            "ws://10.0.0.1",
            "ws://localhost",
            "ws://portal:8080",
            "ws://[fd00::1]",
            "ws://203.0.113.10:8080",
            "ws://[2001:db8::1]:8080",
        ] {
            assert!(!is_public_url(url), "{url}");
        }
        for url in ["ws://api.example.com", "ws://8.8.8.8", "ws://[2a00::1]"] {
            assert!(is_public_url(url), "{url}");
        }
    }
}
