//! Namespaces: becoming root in one, making one per host, starting processes in them.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// How this process came to be allowed to make namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// It was root already.
    Root,
    /// It is root in a user namespace of its own.
    UserNamespace,
}

/// Why no test network can be made here.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// Neither root nor user namespaces.
    #[error(
        "cannot make network namespaces: not root, and user namespaces are not allowed here ({0}); \
         run as root, or allow them with `sysctl kernel.unprivileged_userns_clone=1` \
         (on Ubuntu also `sysctl kernel.apparmor_restrict_unprivileged_userns=0`)"
    )]
    UserNamespace(io::Error),
    /// `/dev/net/tun` is missing or unusable.
    #[error(
        "cannot open /dev/net/tun ({0}); load the module with `modprobe tun`, or give the container the device"
    )]
    NoTun(io::Error),
}

/// Makes sure that this process may create namespaces and devices: moves it into a user namespace of its own unless
/// it is root. Must be called before any thread exists.
pub fn isolate() -> Result<Isolation, IsolationError> {
    let isolation = if nix::unistd::geteuid().is_root() && may_unshare() {
        Isolation::Root
    } else {
        enter_user_namespace().map_err(IsolationError::UserNamespace)?;
        Isolation::UserNamespace
    };
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(IsolationError::NoTun)?;
    Ok(isolation)
}

/// Root in a container may still lack the capability; a thread tries.
fn may_unshare() -> bool {
    thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok())
        .join()
        .unwrap_or(false)
}

fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Whether this process lives in a user namespace below the system's.
pub(crate) fn is_in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // The system's own maps every id to itself.
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// A network and a mount namespace, alive as long as this value or a process inside.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    net: Arc<OwnedFd>,
    mnt: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes both namespaces: a private `/run`, and an `/etc` with the given files replaced.
    /// `configure` runs on a thread inside.
    pub(crate) fn create<T: Send>(
        etc: &BTreeMap<String, String>,
        configure: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Self, T)> {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .context("cannot create a network namespace")?;
            let namespace = Namespace {
                net: Arc::new(fs::File::open("/proc/thread-self/ns/net")?.into()),
                mnt: Arc::new(fs::File::open("/proc/thread-self/ns/mnt")?.into()),
            };
            make_mounts_private(etc).context("cannot set up a private /run and /etc")?;
            Ok((namespace, configure()?))
        };
        thread::scope(|scope| {
            let handle = scope.spawn(inside);
            handle.join().unwrap_or_else(|_| {
                Err(anyhow::anyhow!("the thread inside the namespace panicked"))
            })
        })
    }

    /// Runs a closure on a thread inside the network namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let handle = scope.spawn(|| {
                setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
                work()
            });
            handle.join().unwrap_or_else(|_| {
                Err(anyhow::anyhow!("the thread inside the namespace panicked"))
            })
        })
    }

    /// Makes `command` start inside both namespaces.
    pub(crate) fn enter(&self, command: &mut Command) {
        let this = self.clone();
        // SAFETY: `setns` is a plain system call, safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                setns(this.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
                setns(this.mnt.as_fd(), CloneFlags::CLONE_NEWNS)?;
                Ok(())
            });
        }
    }

    /// Descriptor of the network namespace in this process, for `nsenter --net=/proc/<pid>/fd/<n>`.
    pub(crate) fn net_fd(&self) -> RawFd {
        self.net.as_raw_fd()
    }

    /// Descriptor of the mount namespace in this process.
    pub(crate) fn mnt_fd(&self) -> RawFd {
        self.mnt.as_raw_fd()
    }
}

/// Makes a child process die with the thread that started it.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: `prctl` is a plain system call, safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

const ETC_ORIGINAL: &str = "/run/etc.original";

/// A private `/run` for everybody; where files of `/etc` are replaced, an `/etc` of links to the machine's own.
fn make_mounts_private(etc: &BTreeMap<String, String>) -> Result<()> {
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        nothing,
    )?;
    if etc.is_empty() {
        return Ok(());
    }

    fs::create_dir(ETC_ORIGINAL)?;
    mount(
        Some("/etc"),
        ETC_ORIGINAL,
        nothing,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        nothing,
    )?;
    mount(
        Some("tmpfs"),
        "/etc",
        Some("tmpfs"),
        MsFlags::empty(),
        nothing,
    )?;
    for entry in fs::read_dir(ETC_ORIGINAL)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| etc.contains_key(name)) {
            continue;
        }
        let target = Path::new(ETC_ORIGINAL).join(&name);
        std::os::unix::fs::symlink(target, Path::new("/etc").join(&name))?;
    }
    for (name, content) in etc {
        fs::write(Path::new("/etc").join(name), content)?;
    }
    Ok(())
}
