//! Prints which test shows which item of the specifications; fails if an item has none.

use std::process::ExitCode;

use clap::Parser;
use conformance::{items::Spec, table::Table, workspace_root};

/// Which test shows which numbered item of the specifications.
#[derive(Debug, Parser)]
struct Args {
    /// Only this specification.
    #[arg(value_enum)]
    spec: Option<Spec>,
    /// Only the items without a test.
    #[arg(long)]
    holes: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let table = Table::of_workspace(&workspace_root())?;
    let specs = args.spec.map_or(Spec::ALL.to_vec(), |spec| vec![spec]);

    let mut is_complete = table.unknown.is_empty();
    for spec in &specs {
        let holes = table.holes(*spec);
        is_complete &= holes.is_empty();
        if args.holes {
            for item in holes {
                println!("{:<12}{}", item.id.to_string(), item.title);
            }
        } else {
            println!("{}", table.render(*spec));
        }
    }
    for (test, item) in &table.unknown {
        println!(
            "{}:{}: {} names {item}, which does not exist",
            test.path, test.line, test.name
        );
    }
    for spec in specs {
        println!("{}", table.summary(spec));
    }
    Ok(if is_complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
