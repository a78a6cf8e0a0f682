//! A stand-alone relay's credentials, and what its log tells (relay spec §3.4, §3.6).

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
};

use super::{
    process::{Launch, Relay, SECRET, credentials, ports},
    raw::{Raw, allocate},
};

/// A command beside serving, with a stamp secret file.
fn command(arguments: &[&str], secret_file: &Path) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_firezone-relay"))
        .args(arguments)
        .arg("--stamp-secret-file")
        .arg(secret_file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// What `mint-credentials` prints.
fn minted(secret_file: &Path) -> (String, String) {
    let output = command(&["mint-credentials", "--valid-for", "1h"], secret_file);
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().to_owned()
    };
    (value("username: "), value("password: "))
}

fn code(relay: &Relay, credentials: (String, String)) -> Option<u16> {
    Raw::with_credentials(relay.server(Ipv4Addr::LOCALHOST), credentials).code(allocate())
}

#[test]
fn minted_credentials_are_good_and_stay_good_after_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let before = minted(&file);
    command(&["rotate-secret"], &file);
    let after = minted(&file);
    let relay = Launch {
        secret: &std::fs::read_to_string(&file).unwrap(),
        ..Launch::new(ports(), &["--standalone"])
    }
    .ready();
    assert_eq!(code(&relay, before.clone()), None);
    assert_eq!(code(&relay, after), None);

    // A second rotation ends the first one's.
    command(&["rotate-secret"], &file);
    let relay = Launch {
        secret: &std::fs::read_to_string(&file).unwrap(),
        ..Launch::new(ports(), &["--standalone"])
    }
    .ready();
    let mut outdated = Raw::with_credentials(relay.server(Ipv4Addr::LOCALHOST), before);
    let (_, is_signed) = outdated.round_trip(allocate());
    assert!(!is_signed);
}

#[test]
fn static_users_come_from_the_environment() {
    let relay = Launch {
        prelude: "export STATIC_USER=ada:lovelace,charles:babbage",
        ..Launch::new(ports(), &["--standalone"])
    }
    .ready();
    let user = |name: &str, password: &str| (name.to_owned(), password.to_owned());
    assert_eq!(code(&relay, user("ada", "lovelace")), None);
    assert_eq!(code(&relay, user("charles", "babbage")), None);
    let mut stranger =
        Raw::with_credentials(relay.server(Ipv4Addr::LOCALHOST), user("ada", "babbage"));
    let (_, is_signed) = stranger.round_trip(allocate());
    assert!(!is_signed, "signed with a key that only a guess made");
}

#[test]
fn json_logs_hold_no_secrets() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let prelude = format!("exec >{}", log.path().display());
    let arguments = [
        "--standalone",
        "--log-format",
        "json",
        "--static-user",
        "ada:lovelace",
    ];
    let relay = Launch {
        prelude: &prelude,
        ..Launch::new(ports(), &arguments)
    }
    .ready();
    let (name, password) = credentials("user");
    assert_eq!(code(&relay, (name, password.clone())), None);
    assert_eq!(
        code(&relay, ("ada".to_owned(), "lovelace".to_owned())),
        None
    );
    drop(relay);

    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let is_told = |what: &str| lines.iter().any(|it| it.to_string().contains(what));
    assert!(is_told("Listening"), "{text}");
    for secret in [SECRET, &password, "lovelace"] {
        assert!(!text.contains(secret), "{text}");
    }
}
