//! Mistakes and how they are reported.

use std::path::Path;

use super::*;

const EXAMPLE: &str = include_str!("../../portal.example.toml");

fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
    ConfigFile::parse(Path::new("/etc/firezone/portal.toml"), text)
}

#[test]
fn example_is_valid() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.portal.resources.len(), 4);
    assert_eq!(config.portal.tokens.len(), 3);
    assert_eq!(config.server.database, Database::Memory);
}
