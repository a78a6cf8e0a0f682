//! Notices when the configuration file changes.
//!
//! The folder is watched, not the file, because editors and configuration tools replace files.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, time::timeout};

/// A change counts once nothing changed for so long, so that a file is not read half-written.
const QUIET: Duration = Duration::from_millis(250);

/// Watches one file.
pub(crate) struct FileWatch {
    changes: mpsc::Receiver<()>,
    /// Stops watching when it goes.
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    pub(crate) fn new(file: &Path) -> notify::Result<Self> {
        // One change that waits stands for all.
        let (sender, changes) = mpsc::channel(1);
        let name = file.file_name().map(OsString::from);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| concerns(&event, name.as_ref())) {
                // Full: a change waits already.
                let _ = sender.try_send(());
            }
        })?;
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        Ok(Self {
            changes,
            _watcher: watcher,
        })
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while timeout(QUIET, self.changes.recv()).await.is_ok() {}
    }
}

fn concerns(event: &Event, name: Option<&OsString>) -> bool {
    let written = !matches!(event.kind, EventKind::Access(_));
    // A mounted configuration changes by moving the folder that a link points to, under other names.
    written
        && (event.paths.is_empty()
            || event.paths.iter().any(|path| {
                path.file_name() == name.map(OsString::as_os_str) || path.ends_with("..data")
            }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn notices(watch: &mut FileWatch) -> bool {
        timeout(Duration::from_secs(5), watch.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn writing_and_replacing_are_noticed_and_neighbours_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("portal.toml");
        fs::write(&file, "a").unwrap();
        let mut watch = FileWatch::new(&file).unwrap();
        fs::write(&file, "b").unwrap();
        assert!(notices(&mut watch).await);
        let replacement = directory.path().join("portal.toml.new");
        fs::write(&replacement, "c").unwrap();
        assert!(timeout(QUIET * 2, watch.changed()).await.is_err());
        fs::rename(&replacement, &file).unwrap();
        assert!(notices(&mut watch).await);
        fs::read(&file).unwrap();
        assert!(timeout(QUIET * 2, watch.changed()).await.is_err());
    }
}
