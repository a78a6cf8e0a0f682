//! Moves corpora between the committed archives and folders of files, and runs single inputs. See `README.md`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use fuzz::{Target, archive, folder, targets};

const USAGE: &str = "usage: corpus list
       corpus unpack TARGET|all     archive, or built-in seeds, into libfuzzer/corpus/TARGET
       corpus pack TARGET|all       libfuzzer/corpus/TARGET into the archive
       corpus add TARGET FILE...    files into the archive
       corpus run TARGET FILE...    runs files";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => targets::ALL.iter().for_each(|it| println!("{}", it.name)),
        ["unpack", name] => chosen(name)?.into_iter().try_for_each(unpack)?,
        ["pack", name] => chosen(name)?.into_iter().try_for_each(pack)?,
        ["add", name, ref files @ ..] => add(only(name)?, files)?,
        ["run", name, ref files @ ..] => run(only(name)?, files)?,
        _ => bail!(USAGE),
    }
    Ok(())
}

fn only(name: &str) -> Result<&'static Target> {
    Target::find(name).with_context(|| format!("there is no target `{name}`"))
}

fn chosen(name: &str) -> Result<Vec<&'static Target>> {
    match name {
        "all" => Ok(targets::ALL.iter().collect()),
        name => Ok(vec![only(name)?]),
    }
}

/// Where libFuzzer keeps the inputs of a target.
fn working_folder(target: &Target) -> PathBuf {
    folder().join("libfuzzer/corpus").join(target.name)
}

/// The committed inputs.
fn committed(target: &Target) -> Result<BTreeSet<Vec<u8>>> {
    let path = target.archive();
    if !path.exists() {
        return Ok((target.seeds)().into_iter().collect());
    }
    let inputs = archive::unpack(fs::File::open(&path)?)
        .with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(inputs.into_values().collect())
}

fn write_archive(target: &Target, inputs: &BTreeSet<Vec<u8>>) -> Result<()> {
    let path = target.archive();
    let mut bytes = Vec::new();
    archive::pack(inputs, &mut bytes)?;
    fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    let (count, size) = (inputs.len(), bytes.len());
    println!("{}: {count} inputs, {size} bytes", target.name);
    Ok(())
}

fn unpack(target: &Target) -> Result<()> {
    let folder = working_folder(target);
    fs::create_dir_all(&folder)?;
    let inputs = committed(target)?;
    for input in &inputs {
        fs::write(folder.join(archive::name_of(input)), input)?;
    }
    println!(
        "{}: {} inputs in {}",
        target.name,
        inputs.len(),
        folder.display()
    );
    Ok(())
}

fn pack(target: &Target) -> Result<()> {
    let folder = working_folder(target);
    let mut inputs = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no folder {}", folder.display()))? {
        inputs.insert(read(&entry?.path())?);
    }
    write_archive(target, &inputs)
}

fn add(target: &Target, files: &[&str]) -> Result<()> {
    let mut inputs = committed(target)?;
    for file in files {
        inputs.insert(read(Path::new(file))?);
    }
    write_archive(target, &inputs)
}

fn run(target: &Target, files: &[&str]) -> Result<()> {
    for file in files {
        println!("{file}");
        (target.run)(&read(Path::new(file))?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let input = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_small = input.len() as u64 <= archive::MAX_INPUT_BYTES;
    ensure!(is_small, "{} is too large for a corpus", path.display());
    Ok(input)
}
