//! Unix: the environment is memory that the process was started with, and `/proc/<pid>/environ` shows that memory.

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    /// Entries `NAME=value`, the last one followed by a null pointer.
    static mut environ: *mut *mut c_char;
}

/// Takes a secret out of this process's environment, also out of what `/proc/<pid>/environ` shows: removing the
/// variable alone would leave its bytes there.
///
/// # Safety
///
/// No other thread may exist, and nobody may hold a pointer into the environment.
pub unsafe fn take_from_environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    // SAFETY: `environ` ends with a null pointer and its entries are writable C strings; nobody else looks at them,
    // as promised by the caller.
    unsafe {
        let mut from = environ;
        if from.is_null() {
            return value;
        }
        let mut to = from;
        while !(*from).is_null() {
            let entry = *from;
            let bytes = CStr::from_ptr(entry).to_bytes();
            let is_it = bytes
                .strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.starts_with(b"="));
            if is_it {
                let length = bytes.len();
                entry.write_bytes(0, length);
                // Nobody reads this again, which the compiler must not conclude.
                std::hint::black_box(entry);
            } else {
                *to = entry;
                to = to.add(1);
            }
            from = from.add(1);
        }
        *to = std::ptr::null_mut();
    }
    value
}
