//! Corpora as deterministic archives: equal inputs give equal bytes, so that a change in a commit is a change of inputs.
//!
//! An entry is named after its content (16 hexadecimal digits of SHA-256); entries are sorted and have neither time nor
//! owner; the gzip header has neither name nor time. Reading trusts nothing: names that lead out of the folder, other
//! kinds of entries and oversized ones are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read, Write},
    path::{Component, Path},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder, read::GzDecoder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// Largest input that is kept (bytes).
pub const MAX_INPUT_BYTES: u64 = 1 << 20;
/// Largest sum of all inputs of an archive (bytes).
const MAX_TOTAL_BYTES: u64 = 64 << 20;

/// The name of an input.
#[must_use]
pub fn name_of(input: &[u8]) -> String {
    let digest = Sha256::digest(input);
    digest[..8].iter().fold(String::new(), |mut name, byte| {
        write!(name, "{byte:02x}").expect("writing to a string succeeds");
        name
    })
}

/// Writes the archive of these inputs.
///
/// # Errors
/// `out` cannot be written to.
pub fn pack(inputs: &BTreeSet<Vec<u8>>, out: impl Write) -> Result<()> {
    let by_name: BTreeMap<String, &Vec<u8>> =
        inputs.iter().map(|input| (name_of(input), input)).collect();
    let gzip = GzBuilder::new().mtime(0).write(out, Compression::best());
    let mut tar = tar::Builder::new(gzip);
    for (name, input) in by_name {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(input.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, name, &input[..])?;
    }
    tar.into_inner()?.finish()?;
    Ok(())
}

/// Reads an archive.
///
/// # Errors
/// It is no archive, or has an entry that has no business in it.
pub fn unpack(archive: impl Read) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    let mut inputs = BTreeMap::new();
    let mut total = 0;
    for entry in tar.entries().context("not an archive")? {
        let mut entry = entry.context("broken archive")?;
        let path = entry.path()?.into_owned();
        let name = file_name(&path)?;
        let size = entry.size();
        total += size;
        ensure!(
            entry.header().entry_type() == EntryType::Regular,
            "{name} is no file"
        );
        ensure!(
            size <= MAX_INPUT_BYTES && total <= MAX_TOTAL_BYTES,
            "{name} is too large"
        );
        let mut input = Vec::new();
        entry.read_to_end(&mut input)?;
        inputs.insert(name, input);
    }
    Ok(inputs)
}

/// The path, if it names a file of the folder itself.
fn file_name(path: &Path) -> Result<String> {
    let mut components = path.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) => Ok(name
            .to_str()
            .with_context(|| format!("{} is no text", path.display()))?
            .to_owned()),
        _ => bail!("{} leads out of the folder", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(inputs: &[&[u8]]) -> Vec<u8> {
        let inputs = inputs.iter().map(|input| input.to_vec()).collect();
        let mut bytes = Vec::new();
        pack(&inputs, &mut bytes).unwrap();
        bytes
    }

    /// An archive whose only entry has this raw name and type.
    fn forged(name: &str, kind: EntryType) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_cksum();
        let gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        tar.append(&header, &[][..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn round_trip_without_duplicates() {
        let archive = packed(&[b"b", b"a", b"a", b""]);
        let inputs = unpack(&archive[..]).unwrap();
        assert_eq!(inputs.len(), 3);
        for (name, input) in inputs {
            assert_eq!(name, name_of(&input));
        }
    }

    #[test]
    fn equal_inputs_give_equal_bytes() {
        let archive = packed(&[b"one", b"two"]);
        assert_eq!(archive, packed(&[b"two", b"one"]));
        // RFC 1952: no flags (so no name), no time.
        assert_eq!(archive[3..8], [0; 5]);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for name in ["/etc/passwd", "../x", "a/../../x", "a/b", "..", "."] {
            let error = unpack(&forged(name, EntryType::Regular)[..]).unwrap_err();
            assert!(error.to_string().contains("leads out"), "{name}: {error}");
        }
        assert!(unpack(&forged("x", EntryType::Regular)[..]).is_ok());
    }

    #[test]
    fn other_entries_are_refused() {
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Directory] {
            assert!(unpack(&forged("x", kind)[..]).is_err());
        }
        assert!(unpack(&b"no archive"[..]).is_err());
    }
}
