//! The text format: one line per event.
//!
//! ```text
//! 2026-01-05T10:11:12.345Z  INFO gateway: Tunnel ready elapsed_ms=412 peer=…
//! ```
//!
//! Time, level, target, message, fields of the event, fields of all enclosing spans from the root. Names of spans are
//! not printed.

use std::fmt;

use time::OffsetDateTime;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::utc;

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// Formats events as text; coloured if the writer takes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct HumanFormat;

impl<S, N> FormatEvent<S, N> for HumanFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let time = utc::milliseconds(OffsetDateTime::now_utc());
        let (level, target) = (metadata.level(), metadata.target());
        if writer.has_ansi_escapes() {
            let colour = colour(level);
            write!(
                writer,
                "{DIM}{time}{RESET} {colour}{level:>5}{RESET} {DIM}{target}:{RESET} "
            )?;
        } else {
            write!(writer, "{time} {level:>5} {target}: ")?;
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(writer, " {fields}")?;
            }
        }
        writeln!(writer)
    }
}

fn colour(level: &Level) -> &'static str {
    match *level {
        Level::TRACE => "\x1b[35m",
        Level::DEBUG => "\x1b[34m",
        Level::INFO => "\x1b[32m",
        Level::WARN => "\x1b[33m",
        Level::ERROR => "\x1b[31m",
    }
}
