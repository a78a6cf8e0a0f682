//! What must hold (testing §5.8).

pub mod time;
pub mod wire;
