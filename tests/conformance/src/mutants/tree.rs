//! A copy of the tree that may be broken.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Edit, apply};

/// Copy of the files of a workspace.
#[derive(Debug)]
pub struct Scratch {
    source: PathBuf,
    root: PathBuf,
}

impl Scratch {
    /// Copies what Git knows of the tree at `source`, as it is on disk, to `root`. What is there and equal is left alone,
    /// so that a build from an earlier copy is of use.
    ///
    /// # Errors
    ///
    /// Without Git, and when a file cannot be copied.
    pub fn copy(source: &Path, root: &Path) -> Result<Self> {
        let scratch = Self {
            source: source.to_owned(),
            root: root.to_owned(),
        };
        for file in scratch.files()? {
            scratch.restore(&file)?;
        }
        Ok(scratch)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the changes, calls `check`, and takes them back.
    ///
    /// # Errors
    ///
    /// A change that does not fit; an error of `check`.
    pub fn with<T>(&self, edits: &[Edit], check: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let result = apply(edits, &self.root).and_then(|()| check(&self.root));
        let changed: BTreeSet<_> = edits.iter().map(|edit| &edit.file).collect();
        for file in changed {
            self.restore(file)?;
        }
        result
    }

    fn files(&self) -> Result<Vec<String>> {
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.source)
            .output()
            .context("cannot run git")?;
        ensure!(listed.status.success(), "git does not know this tree");
        let listed = String::from_utf8(listed.stdout)?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    fn restore(&self, file: &str) -> Result<()> {
        let (from, to) = (self.source.join(file), self.root.join(file));
        if !from.is_file() {
            return Ok(());
        }
        let folder = to.parent().context("files lie in folders")?;
        fs::create_dir_all(folder)?;
        // Written, not copied: the time of the change must be now, or Cargo does not build it again.
        let bytes = fs::read(&from)?;
        if fs::read(&to).is_ok_and(|present| present == bytes) {
            return Ok(());
        }
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))
    }
}
