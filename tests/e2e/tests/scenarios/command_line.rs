//! How the programs treat tokens, flags and missing rights. No process of the system runs.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use demo::{
    scenario::{Scenario, host},
    system::System,
};
use e2e::case::Case;
use nix::sched::{CloneFlags, unshare};

use crate::support::client_host;

const DEFAULT_PATH: &str = "/etc/dev.firezone.client/token";

pub(crate) const CASES: &[Case] = &[
    Case::new("client_token_and_flags", Scenario::Direct, client_tokens),
    Case::new(
        "client_gives_up_without_portal",
        Scenario::Direct,
        client_gives_up,
    ),
    Case::new(
        "gateway_without_rights",
        Scenario::Direct,
        gateway_without_rights,
    ),
];

struct Client<'a> {
    system: &'a System,
}

impl Client<'_> {
    fn command(&self) -> Result<Command> {
        let mut command = self.system.role_command(host::CLIENT, "client")?;
        command
            .env("FIREZONE_ID", "0d1f1f6e-52a5-4b33-9d0b-3f1f2c9a6b02")
            .args(["--dns-control", "disabled"]);
        Ok(command)
    }

    /// Runs the client and checks its exit code; the result is everything that it printed.
    fn ends_with(
        &self,
        code: i32,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<String> {
        let mut command = self.command()?;
        command.args(arguments).envs(environment.iter().copied());
        let output = command.output()?;
        let text = printed(&output);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?} ended with {} instead of {code}: {text}",
            output.status
        );
        let token = self.system.files().client_token();
        ensure!(!text.contains(token), "the token was printed: {text}");
        Ok(text)
    }
}

/// clients 3-7, 9
fn client_tokens(system: &mut System) -> Result<()> {
    let token = system.files().client_token().to_owned();
    let host = client_host(system)?;
    let directory = system.directory().join("tokens");
    std::fs::create_dir(&directory)?;
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let (private, public) = (file("private"), file("public"));
    let shell = |script: &str| -> Result<()> {
        let status = host.command("sh").args(["-c", script]).status()?;
        ensure!(status.success(), "{script}");
        Ok(())
    };
    shell(&format!(
        "umask 077; printf ' %s \\n' '{token}' > '{private}'"
    ))?;
    shell(&format!("umask 022; printf %s '{token}' > '{public}'"))?;
    let client = Client { system };

    let with_token = [("FIREZONE_TOKEN", token.as_str())];
    let text = client.ends_with(1, &["--check"], &[])?;
    ensure!(
        text.contains("FIREZONE_TOKEN") && text.contains(DEFAULT_PATH),
        "does not name both places: {text}"
    );
    client.ends_with(0, &["--check"], &with_token)?;
    client.ends_with(0, &["--check", "--token-path", &private], &[])?;
    client.ends_with(0, &["--check"], &[("FIREZONE_TOKEN_PATH", &private)])?;
    client.ends_with(1, &["--check", "--token-path", "/nowhere/token"], &[])?;
    let text = client.ends_with(1, &["--check", "--token-path", &public], &[])?;
    ensure!(
        text.contains(&public) && text.contains("chmod"),
        "no advice: {text}"
    );
    // The environment beats the file, whatever is wrong with that.
    client.ends_with(0, &["--check", "--token-path", &public], &with_token)?;
    shell(&format!(
        "umask 077; mkdir -p /etc/dev.firezone.client; cp '{private}' {DEFAULT_PATH}"
    ))?;
    client.ends_with(0, &["--check"], &[])?;

    client.ends_with(2, &["--check", "--token", "secret"], &[])?;
    client.ends_with(2, &["--no-such-flag"], &[])?;
    client.ends_with(0, &["--help"], &[])?;
    client.ends_with(0, &["--version"], &[])?;
    client.ends_with(0, &["standalone", "--check"], &[])?;
    client.ends_with(1, &["--check", "--api-url", "no url"], &[])?;
    Ok(())
}

/// clients 11
fn client_gives_up(system: &mut System) -> Result<()> {
    let token = system.files().client_token().to_owned();
    let client = Client { system };
    let started = Instant::now();

    // Nobody has this address.
    let portal = "ws://203.0.113.99:8080/";
    client.ends_with(
        1,
        &["--api-url", portal, "--max-partition-time", "3s"],
        &[("FIREZONE_TOKEN", &token)],
    )?;

    let took = started.elapsed();
    let expected = Duration::from_secs(2)..Duration::from_secs(12);
    ensure!(expected.contains(&took), "gave up after {took:?}");
    Ok(())
}

/// clients 9, 86
fn gateway_without_rights(system: &mut System) -> Result<()> {
    let token = system.files().gateway_token().to_owned();
    let gateway = || -> Result<Command> {
        let mut command = system.role_command(host::GATEWAY, "gateway")?;
        command
            .env("FIREZONE_TOKEN", &token)
            .env("FIREZONE_ID", "6f1c3bb6-2a1c-4c5f-8f38-6f6f0a2d7e01");
        Ok(command)
    };
    let mut powerless = gateway()?;
    // SAFETY: `unshare` is a plain system call, safe between fork and exec. In a user namespace without a mapping
    // the program is nobody, and has no capability over the host's network.
    unsafe {
        powerless.pre_exec(|| Ok(unshare(CloneFlags::CLONE_NEWUSER)?));
    }

    let output = powerless.output().context("cannot start the gateway")?;

    let text = printed(&output);
    ensure!(
        output.status.code() == Some(1),
        "ended with {}: {text}",
        output.status
    );
    ensure!(
        text.contains("root") && text.contains("CAP_NET_ADMIN") && text.contains("--no-check"),
        "no advice: {text}"
    );
    ensure!(!text.contains(&token), "the token was printed: {text}");

    let output = gateway()?.arg("--no-such-flag").output()?;
    ensure!(
        output.status.code() == Some(2),
        "ended with {}",
        output.status
    );
    let output = gateway()?.arg("--help").output()?;
    ensure!(
        output.status.code() == Some(0),
        "ended with {}",
        output.status
    );
    Ok(())
}

fn printed(output: &Output) -> String {
    let streams = [output.stdout.as_slice(), output.stderr.as_slice()];
    String::from_utf8_lossy(&streams.concat()).into_owned()
}
