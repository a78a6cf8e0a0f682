//! Systems whose environment is the kernel's business.

/// Takes a secret out of this process's environment.
///
/// # Safety
///
/// No other thread may exist.
pub unsafe fn take_from_environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    // SAFETY: as promised by the caller.
    unsafe { std::env::remove_var(name) };
    value
}
