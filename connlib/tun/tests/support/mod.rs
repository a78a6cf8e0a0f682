//! A device in a fresh network namespace.

use std::net::Ipv4Addr;
use std::process::Command;

use connlib_tun::OpenError;

/// The device's address.
pub(crate) const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Somebody behind the device.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Runs `test` in its own thread and network namespace, with the device `name` that `open` opens there and that has the
/// address [`LOCAL`].
pub(crate) fn with_device<D: 'static>(
    name: &'static str,
    open: impl FnOnce() -> Result<D, OpenError> + Send + 'static,
    test: impl FnOnce(D) + Send + 'static,
) {
    let run = move || {
        // SAFETY: no pointers; affects this thread only, which ends with the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return println!("skipped: no permission to create a network namespace");
        }
        let device = match open() {
            Ok(device) => device,
            Err(error) => return println!("skipped: {error}"),
        };
        for arguments in [
            format!("addr add {LOCAL}/24 dev {name}"),
            format!("link set {name} mtu 1280 up"),
        ] {
            match Command::new("ip").args(arguments.split(' ')).status() {
                Ok(status) => assert!(status.success(), "ip {arguments}"),
                Err(error) => return println!("skipped: cannot run `ip`: {error}"),
            }
        }
        test(device);
    };
    std::thread::spawn(run).join().unwrap();
}
