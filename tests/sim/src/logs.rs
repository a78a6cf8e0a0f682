//! A22: no `ERROR` event from anywhere. A subscriber per thread counts them; it costs nothing else unless a log is
//! wanted.

use std::{
    cell::{Cell, RefCell},
    fmt::{self, Write as _},
    time::Duration,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Log lines of one case at most; a case that runs away must not fill the memory.
const MAX_LINES: usize = 200_000;

thread_local! {
    static LOG: RefCell<Log> = const { RefCell::new(Log { errors: Vec::new(), lines: None }) };
    static TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

struct Log {
    errors: Vec<String>,
    lines: Option<Vec<String>>,
}

/// Runs `case` with the subscriber in place; everything from `level` on is kept for [`take_lines`].
pub fn with<R>(level: Option<Level>, case: impl FnOnce() -> R) -> R {
    LOG.with_borrow_mut(|log| {
        log.errors.clear();
        log.lines = level.map(|_| Vec::new());
    });
    let collector = Collector {
        level: level.unwrap_or(Level::ERROR),
    };
    tracing::subscriber::with_default(collector, case)
}

/// The `ERROR` events since the last call.
pub fn take_errors() -> Vec<String> {
    LOG.with_borrow_mut(|log| std::mem::take(&mut log.errors))
}

/// The lines of the case, if they were wanted.
pub fn take_lines() -> Vec<String> {
    LOG.with_borrow_mut(|log| log.lines.take().unwrap_or_default())
}

/// Sets the virtual time of the lines to come.
pub fn set_time(elapsed: Duration) {
    TIME.set(elapsed);
}

/// Adds a line of the runner's own.
pub fn note(line: impl FnOnce() -> String) {
    LOG.with_borrow_mut(|log| {
        if let Some(lines) = &mut log.lines
            && lines.len() < MAX_LINES
        {
            lines.push(format!("{:?} {}", TIME.get(), line()));
        }
    });
}

struct Collector {
    level: Level,
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = format!("{} {}:", metadata.level(), metadata.target());
        event.record(&mut Fields(&mut line));
        LOG.with_borrow_mut(|log| {
            if *metadata.level() == Level::ERROR {
                log.errors.push(line.clone());
            }
            if let Some(lines) = &mut log.lines
                && lines.len() < MAX_LINES
            {
                lines.push(format!("{:?} {line}", TIME.get()));
            }
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A22
    #[test]
    fn error_events_are_noticed_and_others_are_not() {
        with(None, || {
            tracing::warn!("somebody should look");
            tracing::error!(number = 7, "must never happen");
        });
        let errors = take_errors();
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0].contains("must never happen number=7"),
            "{errors:?}"
        );
        assert!(take_lines().is_empty());
    }
}
