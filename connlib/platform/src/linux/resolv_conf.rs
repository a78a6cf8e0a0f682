//! `/etc/resolv.conf`, rewritten in place and restored (clients spec §3.1).

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::dns_control::DnsControlError;

/// First line of a file that we wrote.
const MARKER: &str = "# BEGIN Firezone DNS configuration";

/// The nameservers of the host's configuration, in order.
pub fn system_nameservers() -> Vec<IpAddr> {
    ResolvConf::system().servers()
}

/// The file, and the backup of the original beside it.
#[derive(Debug, Clone)]
pub(crate) struct ResolvConf {
    path: PathBuf,
    backup: PathBuf,
}

impl ResolvConf {
    pub(crate) fn system() -> Self {
        Self::at(Path::new("/etc/resolv.conf"))
    }

    fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            backup: path.with_extension("conf.before-firezone"),
        }
    }

    /// Saves the original and writes our servers over it. In place: containers bind-mount this file, so it can be
    /// neither renamed nor removed.
    pub(crate) fn activate(
        &self,
        servers: &[IpAddr],
        search_domain: Option<&str>,
    ) -> Result<(), DnsControlError> {
        if servers.is_empty() {
            tracing::warn!("No DNS servers to set; leaving the system's alone");
            return Ok(());
        }
        let metadata = fs::symlink_metadata(&self.path).map_err(failed("read", &self.path))?;
        if metadata.is_symlink() {
            return Err(DnsControlError::Symlink {
                path: self.path.clone(),
            });
        }
        let current = read(&self.path)?;
        let original = match current.starts_with(MARKER) {
            // Ours already: the backup holds the original.
            true => read(&self.backup)?,
            false => {
                self.save(&current)?;
                current
            }
        };
        let text = self.render(&original, servers, search_domain);
        fs::write(&self.path, text).map_err(failed("write", &self.path))
    }

    /// Copies the backup back. It is kept, in case of a power loss half-way.
    pub(crate) fn revert(&self) -> Result<(), DnsControlError> {
        let current = match fs::read_to_string(&self.path) {
            Ok(current) => current,
            Err(_) => return Ok(()),
        };
        if !current.starts_with(MARKER) {
            return Ok(());
        }
        match fs::read_to_string(&self.backup) {
            Ok(original) => fs::write(&self.path, original).map_err(failed("restore", &self.path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("read", &self.backup)(error)),
        }
    }

    /// The servers of the original file, in order, without IPv6 scopes.
    pub(crate) fn servers(&self) -> Vec<IpAddr> {
        let current = fs::read_to_string(&self.path).unwrap_or_default();
        let text = match current.starts_with(MARKER) {
            true => fs::read_to_string(&self.backup).unwrap_or_default(),
            false => current,
        };
        text.lines().filter_map(nameserver).collect()
    }

    /// Atomically, so that a crash leaves the old backup or the new one.
    fn save(&self, original: &str) -> Result<(), DnsControlError> {
        let temporary = self.backup.with_extension("before-firezone.new");
        fs::write(&temporary, original)
            .and_then(|()| fs::rename(&temporary, &self.backup))
            .map_err(failed("write", &self.backup))
    }

    fn render(&self, original: &str, servers: &[IpAddr], search_domain: Option<&str>) -> String {
        let mut text = format!(
            "{MARKER}\n\
             # Written by the Firezone client, which answers names of your resources and asks your own servers for\n\
             # all others. The original is in {} and comes back when the client ends.\n",
            self.backup.display()
        );
        for server in servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        let (search, others): (Vec<_>, Vec<_>) = original
            .lines()
            .filter(|line| nameserver(line).is_none())
            .filter(|line| !line.trim_start().starts_with(['#', ';']))
            .filter(|line| !line.trim().is_empty())
            .partition(|line| matches!(keyword(line), "search" | "domain"));
        // Of several `search` and `domain` lines the last counts (resolv.conf(5)).
        let users = search.last().map_or("", |line| arguments(line));
        let list = [search_domain.unwrap_or_default(), users].join(" ");
        if !list.trim().is_empty() {
            text.push_str(&format!("search {}\n", list.trim()));
        }
        for line in others {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn read(path: &Path) -> Result<String, DnsControlError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DnsControlError {
    let path = path.to_owned();
    move |source| DnsControlError::File {
        action,
        path,
        source,
    }
}

fn keyword(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn arguments(line: &str) -> &str {
    line.trim_start()
        .split_once(char::is_whitespace)
        .map_or("", |(_, rest)| rest.trim())
}

fn nameserver(line: &str) -> Option<IpAddr> {
    if keyword(line) != "nameserver" {
        return None;
    }
    arguments(line).split('%').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = "# by hand\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch lab.example\noptions ndots:2\n";

    fn file() -> (tempfile::TempDir, ResolvConf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, ORIGINAL).unwrap();
        let file = ResolvConf::at(&path);
        (directory, file)
    }

    fn sentinel() -> IpAddr {
        "100.100.111.1".parse().unwrap()
    }

    #[test]
    fn servers_are_replaced_and_everything_else_kept() {
        let (_directory, file) = file();

        file.activate(&[sentinel()], Some("corp.example")).unwrap();

        let text = fs::read_to_string(&file.path).unwrap();
        assert!(text.starts_with(MARKER));
        let settings = text.lines().filter(|line| !line.starts_with('#'));
        let expected = "nameserver 100.100.111.1|search corp.example lab.example|options ndots:2";
        assert_eq!(settings.collect::<Vec<_>>().join("|"), expected);
    }

    #[test]
    fn revert_restores_byte_for_byte_also_after_a_crash() {
        let (_directory, file) = file();
        file.activate(&[sentinel()], None).unwrap();
        file.activate(&[sentinel()], None).unwrap();

        // The predecessor is gone; a new process finds the file.
        let successor = ResolvConf::at(&file.path);
        assert_eq!(successor.servers()[0].to_string(), "192.0.2.1");
        successor.revert().unwrap();

        assert_eq!(fs::read_to_string(&file.path).unwrap(), ORIGINAL);
        assert!(file.backup.exists());
    }

    #[test]
    fn revert_leaves_a_file_alone_that_somebody_else_rewrote() {
        let (_directory, file) = file();
        file.activate(&[sentinel()], None).unwrap();
        fs::write(&file.path, "nameserver 192.0.2.9\n").unwrap();

        file.revert().unwrap();

        let text = fs::read_to_string(&file.path).unwrap();
        assert_eq!(text, "nameserver 192.0.2.9\n");
    }

    #[test]
    fn symlinks_belong_to_somebody_else() {
        let (directory, file) = file();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file.path, &link).unwrap();

        let error = ResolvConf::at(&link).activate(&[sentinel()], None);

        assert!(matches!(error, Err(DnsControlError::Symlink { .. })));
    }

    #[test]
    fn no_servers_change_nothing() {
        let (_directory, file) = file();

        file.activate(&[], None).unwrap();

        assert_eq!(fs::read_to_string(&file.path).unwrap(), ORIGINAL);
    }
}
