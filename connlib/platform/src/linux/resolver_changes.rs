//! Tells when the host's DNS servers may have changed (clients spec §3, "DNS notifier").
//!
//! The kernel tells of changed files (inotify(7)), so nothing wakes while nothing happens. Watched are the folders, since
//! resolvers rename a new file into place, and the files themselves, since containers mount one over another.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout, timeout_at},
};

/// What the name of every file of interest begins with, our backup among them.
const NAME: &str = "resolv.conf";
/// Where systemd-resolved writes the servers that it knows.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// A file is written in several steps: look at it after this much silence.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Look at it after this long even without silence: other files of the folder, all of `/etc`, may change without a break. Nobody
/// who writes the file takes that long, and name resolution is not wrong for longer than that.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Watches the files from which the host's DNS servers are read.
#[derive(Debug)]
pub struct ResolverChanges {
    inotify: AsyncFd<Watches>,
    files: Vec<PathBuf>,
    /// When a change was seen that was not told yet.
    pending_since: Option<Instant>,
}

/// As the reactor wants it.
#[derive(Debug)]
struct Watches(Inotify);

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl ResolverChanges {
    /// Starts watching `/etc/resolv.conf` and the file of systemd-resolved, of which either may be missing. Must be called
    /// inside a runtime.
    ///
    /// # Errors
    ///
    /// If the kernel watches none of them, for example because a limit of inotify(7) is reached.
    pub fn watch() -> io::Result<Self> {
        Self::of(vec!["/etc/resolv.conf".into(), RESOLVED.into()])
    }

    fn of(files: Vec<PathBuf>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let folders = files.iter().filter_map(|file| file.parent());
        let mut watched = Err(io::Error::other("nothing to watch"));
        for folder in folders {
            let result = inotify.add_watch(
                folder,
                AddWatchFlags::IN_CLOSE_WRITE
                    | AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_DELETE,
            );
            match (result, &watched) {
                (Ok(_), _) => watched = Ok(()),
                (Err(error), Err(_)) => watched = Err(error.into()),
                (Err(_), Ok(())) => {}
            }
        }
        watched?;
        // SAFETY: the descriptor belongs to `Watches` and is closed with it.
        let inotify =
            unsafe { AsyncFd::register_with_interest(Watches(inotify), Interest::READABLE) }?;
        let this = Self {
            inotify,
            files,
            pending_since: None,
        };
        this.watch_files();

        Ok(this)
    }

    /// Waits for the next change. Cancel-safe.
    pub async fn changed(&mut self) {
        let since = loop {
            if let Some(since) = self.pending_since {
                break since;
            }
            self.pending_since = self.seen().await.then(Instant::now);
        };
        let _ = timeout_at(since + LONGEST_WAIT, self.silence()).await;
        self.pending_since = None;
        self.watch_files();
    }

    /// Waits until nothing happens in the watched folders.
    async fn silence(&mut self) {
        while timeout(DEBOUNCE, self.seen()).await.is_ok() {}
    }

    /// Waits for events; whether one was about a file of interest.
    async fn seen(&mut self) -> bool {
        let Ok(mut ready) = self.inotify.readable().await else {
            // The runtime is ending.
            return std::future::pending().await;
        };
        match ready.get_inner().0.read_events() {
            Ok(events) => events.iter().any(|event| match &event.name {
                Some(name) => name.to_string_lossy().starts_with(NAME),
                None => true,
            }),
            Err(_) => {
                ready.clear_ready();
                false
            }
        }
    }

    /// Watches what lies at the paths now. Naming the same file again changes nothing.
    fn watch_files(&self) {
        for file in &self.files {
            let _ = self
                .inotify
                .get_ref()
                .0
                .add_watch(Path::new(file), AddWatchFlags::IN_CLOSE_WRITE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(600);

    async fn is_told(changes: &mut ResolverChanges, within: Duration) -> bool {
        timeout(within, changes.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn written_renamed_and_removed_files_are_told_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let mut changes = ResolverChanges::of(vec![file.clone()]).unwrap();
        assert!(!is_told(&mut changes, SHORT).await);

        fs::write(&file, "nameserver 192.0.2.1").unwrap();
        assert!(is_told(&mut changes, LONG).await);

        let new = folder.path().join("new");
        fs::write(&new, "nameserver 192.0.2.2").unwrap();
        assert!(!is_told(&mut changes, SHORT).await);
        fs::rename(&new, &file).unwrap();
        assert!(is_told(&mut changes, LONG).await);

        // The file that lies there now.
        fs::write(&file, "nameserver 192.0.2.3").unwrap();
        assert!(is_told(&mut changes, LONG).await);
        fs::remove_file(&file).unwrap();
        assert!(is_told(&mut changes, LONG).await);
    }

    #[tokio::test]
    async fn a_change_is_told_although_other_files_never_rest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let mut changes = ResolverChanges::of(vec![file.clone()]).unwrap();
        let other = folder.path().join("other");
        let restless = tokio::spawn(async move {
            loop {
                fs::write(&other, "anything").unwrap();
                tokio::time::sleep(DEBOUNCE / 10).await;
            }
        });
        fs::write(&file, "nameserver 192.0.2.1").unwrap();
        // Also to somebody who has other things to do meanwhile.
        let told = async { while !is_told(&mut changes, LONGEST_WAIT / 4).await {} };
        assert!(timeout(LONG, told).await.is_ok());
        // Others are still none of our business.
        assert!(!is_told(&mut changes, SHORT).await);
        restless.abort();
    }

    #[tokio::test]
    async fn a_folder_may_be_missing_but_not_all() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/resolv.conf");
        assert!(ResolverChanges::of(vec![missing.clone()]).is_err());

        let file = folder.path().join("resolv.conf");
        let mut changes = ResolverChanges::of(vec![missing, file.clone()]).unwrap();
        fs::write(&file, "nameserver 192.0.2.1").unwrap();
        assert!(is_told(&mut changes, LONG).await);
    }
}
