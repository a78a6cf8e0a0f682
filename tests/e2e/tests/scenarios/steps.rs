//! Everything that the demo shows, in every network that it can build.

use std::time::Duration;

use anyhow::{Result, bail};
use demo::{
    report::{Format, Reporter},
    scenario::Scenario,
    steps::{self, Ending, Options},
    system::System,
};
use e2e::case::Case;

/// Enough for many round trips and a full window, little enough for unoptimised programs.
const FILE_SIZE: u64 = 4 << 20;
/// With 5 % loss, TCP gets little through.
const LOSSY_FILE_SIZE: u64 = 512 << 10;
/// Unoptimised programs on a busy machine; the demo itself holds the product to its promise.
const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(2);

pub(crate) const CASES: &[Case] = &[
    Case::new("direct_all_steps", Scenario::Direct, all_steps),
    Case::new("relayed_all_steps", Scenario::Relayed, all_steps),
    Case::new("symmetric_nat_all_steps", Scenario::SymmetricNat, all_steps),
    Case::new("ipv6_only_all_steps", Scenario::Ipv6Only, all_steps),
    Case::new("lossy_all_steps", Scenario::Lossy, all_steps),
];

fn all_steps(system: &mut System) -> Result<()> {
    let mut reporter = Reporter::new(Format::Silent);
    let options = Options {
        file_size: match system.scenario() {
            Scenario::Lossy => LOSSY_FILE_SIZE,
            Scenario::Direct | Scenario::Relayed | Scenario::SymmetricNat | Scenario::Ipv6Only => {
                FILE_SIZE
            }
        },
        first_byte_limit: FIRST_BYTE_LIMIT,
        ending: Ending::Goodbye,
    };
    steps::run(system, &mut reporter, options)?;
    let summary = reporter.conclude(system.scenario());
    let failed = summary.steps.iter().filter(|step| !step.ok);
    let failed = failed.map(|step| format!("{}: {}", step.name, step.detail));
    let failed = failed.collect::<Vec<_>>();
    if !summary.ok {
        bail!("{}", failed.join("\n  "));
    }
    Ok(())
}
