//! The in-memory network interface under `smoltcp`.
