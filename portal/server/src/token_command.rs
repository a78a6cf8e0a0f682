//! `firezone-portal token create`: makes a token, prints it once, and keeps its hash.

use std::{fs::OpenOptions, io::Write as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use connlib_messages::Secret;
use portal_core::token::{self, Component, TokenHash};

use crate::config_file::ConfigFile;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token. stdout gets the token and nothing else; the configuration file gets its hash.
    Create(Create),
}

/// A token to make.
#[derive(Debug, Args)]
pub struct Create {
    /// Who will use it: client, gateway or relay.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_component)]
    component: Component,

    /// A name for people, such as "Jo's laptop".
    #[arg(long)]
    name: String,

    /// For a client: whose devices it lets in.
    #[arg(long)]
    person: Option<String>,

    /// For a gateway: its site.
    #[arg(long)]
    site: Option<String>,

    /// When it ends, such as 2027-01-31 or 2027-01-31T12:00:00Z.
    #[arg(long)]
    expires: Option<String>,

    /// Print the lines for the configuration file behind the token, instead of appending them to the file.
    #[arg(long)]
    print: bool,
}

fn parse_component(text: &str) -> Result<Component, String> {
    text.parse()
}

/// A new token.
#[derive(Debug)]
pub struct NewToken {
    /// What its holder gets; it cannot be shown again.
    pub token: Secret,
    /// What the configuration file gets.
    pub block: String,
}

impl NewToken {
    /// Makes a token with fresh randomness for a client of `person`, a gateway of `site`, or a relay (neither).
    ///
    /// `expires` is a TOML date or date and time.
    pub fn generate(
        component: Component,
        name: &str,
        person: Option<&str>,
        site: Option<&str>,
        expires: Option<&str>,
    ) -> Self {
        let token = token::generate(component, rand::random());
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut block = format!(
            "[[token]]\ntype = \"{component}\"\nname = {}\n",
            quoted(name)
        );
        for (member, value) in [("person", person), ("site", site)] {
            if let Some(value) = value {
                block.push_str(&format!("{member} = {}\n", quoted(value)));
            }
        }
        let hash = TokenHash::of(token.expose());
        block.push_str(&format!("hash = \"{hash}\"\n"));
        if let Some(expires) = expires {
            block.push_str(&format!("expires = {expires}\n"));
        }
        Self { token, block }
    }
}

pub(crate) fn execute(command: &TokenCommand, config: &Path) -> anyhow::Result<()> {
    let TokenCommand::Create(create) = command;
    check(create)?;
    let new = NewToken::generate(
        create.component,
        &create.name,
        create.person.as_deref(),
        create.site.as_deref(),
        create.expires.as_deref(),
    );
    if create.print {
        println!("{}\n\n{}", new.token.expose(), new.block.trim_end());
        return Ok(());
    }
    append(config, &new.block)?;
    println!("{}", new.token.expose());
    eprintln!(
        "The token works from now on; its hash is in {}.",
        config.display()
    );
    Ok(())
}

fn check(create: &Create) -> anyhow::Result<()> {
    match (create.component, &create.person, &create.site) {
        (Component::Client, Some(_), None)
        | (Component::Gateway, None, Some(_))
        | (Component::Relay, None, None) => {}
        (Component::Client, ..) => bail!("a client token needs --person NAME and no --site"),
        (Component::Gateway, ..) => bail!("a gateway token needs --site NAME and no --person"),
        (Component::Relay, ..) => bail!("a relay token has neither --person nor --site"),
    }
    if let Some(expires) = &create.expires {
        let datetime = expires.parse::<toml::value::Datetime>();
        ensure!(
            datetime.is_ok_and(|datetime| datetime.date.is_some()),
            "'{expires}' is no date: write --expires 2027-01-31 or 2027-01-31T12:00:00Z"
        );
    }
    Ok(())
}

/// Appends a block to the configuration file, unless the file would not be valid with it.
fn append(path: &Path, block: &str) -> anyhow::Result<()> {
    ConfigFile::read(path)?;
    let before = std::fs::read_to_string(path)?;
    let newline = if before.ends_with('\n') { "" } else { "\n" };
    let addition = format!("{newline}\n{block}");
    ConfigFile::parse(path, &format!("{before}{addition}"))?;
    let file = OpenOptions::new().append(true).open(path);
    let mut file = file.with_context(|| {
        format!(
            "{} cannot be written: use --print and add the lines yourself",
            path.display()
        )
    })?;
    file.write_all(addition.as_bytes())?;
    file.sync_all()?;
    Ok(())
}
