//! `mint-credentials`: user name and password for a stand-alone relay (relay spec §2.3, §3.4).

use std::time::SystemTime;

use anyhow::{Result, ensure};
use connlib_stun::RelayUsername;

use crate::{cli::MintArguments, secret_file};

pub(crate) fn run(arguments: &MintArguments) -> Result<()> {
    let secret = secret_file::load_or_create(&arguments.stamp_secret_file)?.present;
    let salt = match &arguments.salt {
        Some(salt) => salt.clone(),
        None => uuid::Uuid::new_v4().simple().to_string(),
    };
    let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let expiry = unix_now.saturating_add(arguments.valid_for).as_secs();
    let username = format!("{expiry}:{salt}");
    let user = RelayUsername::parse(&username);
    ensure!(
        user.is_ok(),
        "the salt must not be empty or contain a colon, and user name must stay below 128 bytes (--salt)"
    );
    println!("username: {username}");
    println!("password: {}", user?.password(secret.expose()));
    Ok(())
}
