//! Keeps log directories small, and empties them on request.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// All log files together.
pub const MAX_TOTAL_BYTES: u64 = 100 * 1024 * 1024;

/// Time between two looks at the directories.
pub const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Files written more recently may belong to a running process.
const MIN_AGE: Duration = Duration::from_secs(5 * 60);

/// A cap of zero would delete everything; that is what [`clear`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the size cap of the logs must not be zero")]
pub struct ZeroCap;

/// Deletes the oldest `.log` files of `directories` until all together fit into `max_bytes`. Recent files, files from the
/// future, symbolic links and the last file of each directory stay. Returns how many were deleted.
pub fn enforce_cap(
    directories: &[PathBuf],
    max_bytes: u64,
    now: SystemTime,
) -> Result<usize, ZeroCap> {
    if max_bytes == 0 {
        return Err(ZeroCap);
    }
    let mut files: Vec<LogFile> = directories
        .iter()
        .flat_map(|directory| log_files(directory))
        .collect();
    files.sort_by_key(|file| file.modified);
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    let mut remaining = BTreeMap::new();
    for file in &files {
        *remaining.entry(file.directory.clone()).or_insert(0usize) += 1;
    }
    let mut deleted = 0;
    for file in files {
        if total <= max_bytes {
            break;
        }
        let is_old = now
            .duration_since(file.modified)
            .is_ok_and(|age| age >= MIN_AGE);
        let Some(left) = remaining.get_mut(&file.directory).filter(|left| **left > 1) else {
            continue;
        };
        if is_old && fs::remove_file(&file.path).is_ok() {
            *left -= 1;
            total -= file.bytes;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Deletes every file of `directory` but the newest log of `process`, including files that are not logs, such as crash
/// dumps. A missing directory is success; failed deletions are passed over and the last one is reported.
pub fn clear(directory: &Path, process: &str) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    let newest = files
        .iter()
        .filter(|path| is_log_of(path, process))
        .max()
        .cloned();
    let mut result = Ok(());
    for path in files.iter().filter(|path| Some(*path) != newest.as_ref()) {
        if let Err(error) = fs::remove_file(path) {
            result = Err(error);
        }
    }
    result
}

struct LogFile {
    directory: PathBuf,
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

fn log_files(directory: &Path) -> Vec<LogFile> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let metadata = fs::symlink_metadata(&path).ok()?;
            let is_log = metadata.is_file() && path.extension()? == "log";
            is_log.then_some(LogFile {
                directory: directory.to_owned(),
                bytes: metadata.len(),
                modified: metadata.modified().ok()?,
                path,
            })
        })
        .collect()
}

fn is_log_of(path: &Path, process: &str) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.strip_prefix(process)
        .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".log"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn write(directory: &Path, name: &str, bytes: usize, age: Duration) {
        let path = directory.join(name);
        fs::write(&path, vec![0; bytes]).unwrap();
        let modified = SystemTime::now() - age;
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn oldest_go_first_until_the_rest_fits() {
        let directory = tempfile::tempdir().unwrap();
        for (name, hours) in [("a.log", 4), ("b.log", 3), ("c.log", 2), ("other.txt", 9)] {
            write(directory.path(), name, 100, hours * HOUR);
        }
        let deleted = enforce_cap(&[directory.path().to_owned()], 250, SystemTime::now()).unwrap();
        assert_eq!(
            (deleted, names(directory.path())),
            (1, vec!["b.log".into(), "c.log".into(), "other.txt".into()])
        );
    }

    #[test]
    fn recent_files_links_and_the_last_one_stay() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "old.log", 100, 2 * HOUR);
        write(directory.path(), "new.log", 100, Duration::ZERO);
        #[cfg(unix)]
        std::os::unix::fs::symlink("/nowhere", directory.path().join("link.log")).unwrap();
        enforce_cap(&[directory.path().to_owned()], 1, SystemTime::now()).unwrap();
        let left = names(directory.path());
        assert!(
            left.contains(&"new.log".to_owned()) && !left.contains(&"old.log".to_owned()),
            "{left:?}"
        );

        let single = tempfile::tempdir().unwrap();
        write(single.path(), "last.log", 100, 2 * HOUR);
        enforce_cap(&[single.path().to_owned()], 1, SystemTime::now()).unwrap();
        assert_eq!(names(single.path()), ["last.log"]);
    }

    #[test]
    fn a_cap_of_zero_is_refused() {
        assert_eq!(enforce_cap(&[], 0, SystemTime::now()), Err(ZeroCap));
    }

    #[test]
    fn clearing_keeps_only_the_newest_log() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "p.2026-01-01-00-00-00.log",
            "p.2026-02-01-00-00-00.log",
            "crash.dmp",
            "q.1.log",
        ] {
            write(directory.path(), name, 1, HOUR);
        }
        clear(directory.path(), "p").unwrap();
        assert_eq!(names(directory.path()), ["p.2026-02-01-00-00-00.log"]);
        assert!(clear(&directory.path().join("missing"), "p").is_ok());
    }
}
