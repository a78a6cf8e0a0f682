//! Do the tests show what they have to show?
//!
//! | Module | Question |
//! |---|---|
//! | [`items`] | What is demanded: the numbered items of the behavioural specifications |
//! | [`scan`] | Which test names which item |
//! | [`table`] | Which item has no test |
//! | [`mutants`] | Which test notices when the product is broken |
//!
//! Nothing here depends on the product: it reads sources as text, so that it builds in seconds and also when the product
//! does not.
#![deny(missing_docs)]

pub mod citation;
pub mod items;
pub mod mutants;
pub mod scan;
pub mod sources;
pub mod table;

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("this crate lies two levels below the root")
        .to_path_buf()
}
