//! The workspace's own source files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Folders without sources of ours.
const SKIPPED: [&str; 4] = ["target", ".git", "corpus", "node_modules"];

/// A file and its text.
#[derive(Debug)]
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// All files under `root` with one of these extensions, in order of their paths.
///
/// # Errors
///
/// A folder or file that cannot be read.
pub fn read(root: &Path, extensions: &[&str]) -> io::Result<Vec<Source>> {
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !extension.is_some_and(|extension| extensions.contains(&extension)) {
            continue;
        }
        let relative = path.strip_prefix(root).unwrap_or(&path);
        sources.push(Source {
            path: relative.to_string_lossy().replace('\\', "/"),
            text: fs::read_to_string(&path)?,
        });
    }
    Ok(sources)
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let is_skipped = SKIPPED.iter().any(|skipped| entry.file_name() == *skipped);
        if kind.is_dir() && !is_skipped {
            collect(&entry.path(), paths)?;
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}
