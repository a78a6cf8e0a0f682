//! One log file per process start: `<process>.<time>.log`, created on demand, written by a background thread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::utc;

/// Lines that may wait for the disk; more are dropped, because logging must not slow the data path down.
const MAX_WAITING_LINES: usize = 1024;

/// A log file that is created with its first line, and again when somebody deletes it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
}

impl LogFile {
    /// The file of a process that starts now. Creates `directory`, and the file itself to see that this is possible.
    pub fn create(directory: &Path, process: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let stamp = utc::file_stamp(OffsetDateTime::now_utc());
        let mut log = Self {
            path: directory.join(format!("{process}.{stamp}.log")),
            file: None,
        };
        log.file()?;
        Ok(log)
    }

    /// Where the lines go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the writing to a background thread; the guard must live until the end of the program.
    pub fn into_background(self) -> (NonBlocking, WorkerGuard) {
        NonBlockingBuilder::default()
            .buffered_lines_limit(MAX_WAITING_LINES)
            .lossy(true)
            .thread_name("log-writer")
            .finish(self)
    }

    fn file(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) if self.path.exists() => file,
            Some(_) | None => {
                if let Some(directory) = self.path.parent() {
                    fs::create_dir_all(directory)?;
                }
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&self.path)?
            }
        };
        Ok(self.file.insert(file))
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file()?.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_process_time_and_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = LogFile::create(&directory.path().join("a/b"), "firezone-gateway").unwrap();
        let name = log.path().file_name().unwrap().to_str().unwrap().to_owned();
        let stamp = name
            .strip_prefix("firezone-gateway.")
            .unwrap()
            .strip_suffix(".log")
            .unwrap();
        assert_eq!(
            stamp.split('-').map(str::len).collect::<Vec<_>>(),
            [4, 2, 2, 2, 2, 2]
        );
    }

    #[test]
    fn a_deleted_file_comes_back_with_the_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = LogFile::create(directory.path(), "p").unwrap();
        log.write_all(b"one\n").unwrap();
        fs::remove_file(log.path()).unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "two\n");
    }

    #[test]
    fn dropping_the_guard_flushes() {
        let directory = tempfile::tempdir().unwrap();
        let log = LogFile::create(directory.path(), "p").unwrap();
        let path = log.path().to_owned();
        let (mut writer, guard) = log.into_background();
        writer.write_all(b"line\n").unwrap();
        drop(guard);
        assert_eq!(fs::read_to_string(path).unwrap(), "line\n");
    }

    #[test]
    fn an_impossible_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(LogFile::create(&file.path().join("x"), "p").is_err());
    }
}
