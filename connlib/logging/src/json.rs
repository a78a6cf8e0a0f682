//! The file format: one JSON object per line, with the keys that log collectors expect.
//!
//! Keys, in this order: `time`, `target`, `logging.googleapis.com/sourceLocation`, `span` and `spans` (only inside a
//! span), `severity`, then every field of the event sorted by name. `message` is always there, so that
//! `jq -r '"\(.time) \(.severity) \(.message)"'` works on every line.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::utc;

/// Writes every event as a line of JSON.
#[derive(Debug)]
pub struct JsonLayer<W> {
    writer: W,
}

impl<W> JsonLayer<W> {
    /// A layer that writes to `writer`, one call per line.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| span_object(&span))
            .collect();
        let line = line(event, fields, spans, OffsetDateTime::now_utc());
        // A log that cannot be written has nowhere to complain.
        let _ = self
            .writer
            .make_writer_for(event.metadata())
            .write_all(line.as_bytes());
    }
}

/// Fields of an event or span by their original names.
#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").into());
    }
}

fn line(event: &Event<'_>, mut fields: Fields, spans: Vec<String>, time: OffsetDateTime) -> String {
    let metadata = event.metadata();
    let severity = match fields.0.remove("severity") {
        Some(Value::String(severity)) => severity,
        Some(_) | None => severity(metadata.level()).to_owned(),
    };
    fields.0.entry("message").or_insert_with(|| "".into());

    let mut object = Object::default();
    object.string("time", &utc::full(time));
    object.string("target", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        let mut location = Object::default();
        location.string("file", file);
        location.string("line", &line.to_string());
        object.raw("logging.googleapis.com/sourceLocation", &location.end());
    }
    if let Some(innermost) = spans.last() {
        object.raw("span", innermost);
        object.raw("spans", &format!("[{}]", spans.join(",")));
    }
    object.string("severity", &severity);
    write_fields(&mut object, fields);
    object.end() + "\n"
}

/// Ordinary fields under their camel-case names; the special ones where collectors look for them.
fn write_fields(object: &mut Object, fields: Fields) {
    let (mut request, mut labels) = (Map::new(), Map::new());
    for (name, value) in fields.0 {
        if let Some(name) = name.strip_prefix("http_request.") {
            request.insert(camel_case(name), value);
        } else if let Some(name) = name.strip_prefix("labels.") {
            labels.insert(camel_case(name), text(value).into());
        } else if name == "insert_id" {
            object.value("logging.googleapis.com/insertId", &value);
        } else {
            object.value(&camel_case(name), &value);
        }
    }
    if !request.is_empty() {
        object.value("httpRequest", &Value::Object(request));
    }
    if !labels.is_empty() {
        object.value("logging.googleapis.com/labels", &Value::Object(labels));
    }
}

fn span_object<S: for<'a> LookupSpan<'a>>(span: &SpanRef<'_, S>) -> String {
    let mut object = Object::default();
    if let Some(fields) = span.extensions().get::<Fields>() {
        for (name, value) in &fields.0 {
            object.value(name, value);
        }
    }
    object.string("name", span.name());
    object.end()
}

fn severity(level: &Level) -> &'static str {
    match *level {
        Level::TRACE | Level::DEBUG => "DEBUG",
        Level::INFO => "INFO",
        Level::WARN => "WARNING",
        Level::ERROR => "ERROR",
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// `elapsed_ms` becomes `elapsedMs`.
fn camel_case(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    let mut is_start = false;
    for c in name.chars() {
        match c {
            '_' if !result.is_empty() => is_start = true,
            '_' => {}
            c if is_start => {
                result.extend(c.to_uppercase());
                is_start = false;
            }
            c => result.push(c),
        }
    }
    result
}

/// A JSON object with its keys in the order of writing.
#[derive(Default)]
struct Object(String);

impl Object {
    fn string(&mut self, key: &str, value: &str) {
        self.value(key, &Value::from(value));
    }

    fn value(&mut self, key: &str, value: &Value) {
        self.raw(key, &value.to_string());
    }

    fn raw(&mut self, key: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&Value::from(key).to_string());
        self.0.push(':');
        self.0.push_str(json);
    }

    fn end(self) -> String {
        match self.0.is_empty() {
            true => "{}".to_owned(),
            false => self.0 + "}",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(emit: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber =
            tracing_subscriber::registry().with(JsonLayer::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, emit);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn parsed(emit: impl FnOnce()) -> Value {
        let lines = log(emit);
        assert_eq!(lines.len(), 1);
        serde_json::from_str(&lines[0]).unwrap()
    }

    #[test]
    fn keys_come_in_the_documented_order() {
        let lines = log(|| {
            let _span = tracing::info_span!("outer", site = 1).entered();
            tracing::info!(target: "tunnel_service", elapsed_ms = 412, "Tunnel ready");
        });
        let positions: Vec<_> = [
            "time",
            "target",
            "logging.googleapis.com/sourceLocation",
            "span",
            "spans",
            "severity",
            "elapsedMs",
            "message",
        ]
        .map(|key| {
            lines[0]
                .find(&format!("\"{key}\":"))
                .unwrap_or_else(|| panic!("{key} in {}", lines[0]))
        })
        .to_vec();
        assert!(positions.is_sorted(), "{}", lines[0]);
    }

    #[test]
    fn fields_keep_their_types_and_debug_values_are_strings() {
        let value =
            parsed(|| tracing::warn!(count = 3, ratio = 0.5, ok = true, list = ?[1, 2], "x"));
        assert_eq!(value["count"], 3);
        assert_eq!(value["ratio"], 0.5);
        assert_eq!(value["ok"], true);
        assert_eq!(value["list"], "[1, 2]");
        assert_eq!(value["severity"], "WARNING");
        assert!(value["logging.googleapis.com/sourceLocation"]["line"].is_string());
    }

    #[test]
    fn message_is_always_there() {
        assert_eq!(parsed(|| tracing::info!(a = 1))["message"], "");
    }

    #[test]
    fn spans_go_from_root_to_leaf() {
        let value = parsed(|| {
            let _outer = tracing::info_span!("outer", a = 1).entered();
            let inner = tracing::info_span!("inner", b = tracing::field::Empty);
            inner.record("b", "late");
            let _inner = inner.entered();
            tracing::trace!("x");
        });
        assert_eq!(
            value["spans"],
            serde_json::json!([{"a": 1, "name": "outer"}, {"b": "late", "name": "inner"}])
        );
        assert_eq!(value["span"]["name"], "inner");
        assert_eq!(value["severity"], "DEBUG");
    }

    #[test]
    fn special_fields_go_where_collectors_look() {
        let value = parsed(|| {
            tracing::info!(
                http_request.status_code = 200,
                labels.user_count = 4,
                insert_id = "i",
                severity = "NOTICE",
                "x"
            );
        });
        assert_eq!(value["httpRequest"]["statusCode"], 200);
        assert_eq!(value["logging.googleapis.com/labels"]["userCount"], "4");
        assert_eq!(value["logging.googleapis.com/insertId"], "i");
        assert_eq!(value["severity"], "NOTICE");
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let lines = log(|| tracing::info!("a\nb\"{}", "\u{1b}[31m"));
        assert_eq!(lines.len(), 1);
        let value: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(value["message"], "a\nb\"\u{1b}[31m");
    }

    #[test]
    fn camel_case_of_odd_names() {
        for (name, expected) in [
            ("a", "a"),
            ("a_b_c", "aBC"),
            ("_x", "x"),
            ("peer.id", "peer.id"),
            ("a__b", "aB"),
        ] {
            assert_eq!(camel_case(name), expected);
        }
    }
}
