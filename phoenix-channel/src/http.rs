//! What an HTTP answer to the WebSocket upgrade means (spec of the portal protocol, §1.12).
//!
//! Only 401 ends the channel. Its body tells whether the token is at fault (a problem document of RFC 9457 with a known
//! `code`) or something in between refused us; every other status is retried.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::error::{ConnectionError, LoginRefused};

/// Longest delay taken from a `Retry-After`: an absurd value must not silence a component for days.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// Characters of a body that are kept for logs.
const MAX_DETAIL_CHARS: usize = 200;

/// The parts of an HTTP response that matter here.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// Status code.
    pub status: u16,
    /// `Content-Type`, if any.
    pub content_type: Option<&'a str>,
    /// `Retry-After`, if any.
    pub retry_after: Option<&'a str>,
    /// Body, possibly cut off.
    pub body: &'a [u8],
}

/// Why `response` is no upgrade. `utc_now` turns a date of `Retry-After` into a delay.
pub fn classify(response: Response<'_>, utc_now: SystemTime) -> ConnectionError {
    let problem = Problem::of(&response);
    let detail = match &problem {
        Some(problem) => problem.text(),
        None => shorten(&String::from_utf8_lossy(response.body)),
    };
    match (
        response.status,
        problem.as_ref().and_then(|p| p.code.as_deref()),
    ) {
        (401, Some("invalid_token" | "missing_token")) => {
            ConnectionError::Refused(LoginRefused::InvalidToken)
        }
        (401, _) => ConnectionError::Refused(LoginRefused::AuthenticationFailed(detail)),
        (status, _) => ConnectionError::Http {
            status,
            detail,
            retry_after: response
                .retry_after
                .and_then(|text| retry_after(text, utc_now)),
        },
    }
}

/// Reads a `Retry-After` header: seconds or an HTTP date (RFC 9110 §10.2.3). A date in the past is no delay; anything
/// unreadable is ignored. Never more than [`MAX_RETRY_AFTER`].
pub fn retry_after(text: &str, utc_now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let delay = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(utc_now).unwrap_or(Duration::ZERO)
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

/// The members of a problem document that are used.
#[derive(Debug, Deserialize)]
struct Problem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
}

impl Problem {
    fn of(response: &Response<'_>) -> Option<Self> {
        let essence = response.content_type?.split(';').next()?.trim();
        if !essence.eq_ignore_ascii_case("application/problem+json") {
            return None;
        }
        serde_json::from_slice(response.body).ok()
    }

    fn text(&self) -> String {
        let parts = [&self.code, &self.title, &self.detail];
        shorten(
            &parts
                .into_iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
        )
    }
}

/// One printable line of bounded length.
fn shorten(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_DETAIL_CHARS)
        .collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROBLEM: &str = "application/problem+json";

    fn response<'a>(status: u16, content_type: &'a str, body: &'a str) -> Response<'a> {
        Response {
            status,
            content_type: Some(content_type),
            retry_after: None,
            body: body.as_bytes(),
        }
    }

    fn classify_now(response: Response<'_>) -> ConnectionError {
        classify(response, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn portal_29_a_problem_that_names_the_token_is_an_invalid_token() {
        for (content_type, code) in [
            (PROBLEM, "invalid_token"),
            (PROBLEM, "missing_token"),
            ("Application/Problem+JSON; charset=utf-8", "invalid_token"),
        ] {
            let body = format!(r#"{{"status":401,"code":"{code}"}}"#);
            let error = classify_now(response(401, content_type, &body));
            assert_eq!(error, ConnectionError::Refused(LoginRefused::InvalidToken));
        }
    }

    #[test]
    fn portal_30_any_other_401_keeps_the_token() {
        for (content_type, body) in [
            ("text/html", "<h1>proxy</h1>"),
            (PROBLEM, "not json"),
            (PROBLEM, r#"{"code":"other"}"#),
            ("application/json", r#"{"code":"invalid_token"}"#),
        ] {
            let error = classify_now(response(401, content_type, body));
            assert!(
                matches!(
                    error,
                    ConnectionError::Refused(LoginRefused::AuthenticationFailed(_))
                ),
                "{body}"
            );
        }
    }

    #[test]
    fn portal_31_every_other_status_is_retried() {
        for code in [
            200, 301, 400, 402, 403, 404, 408, 409, 422, 429, 500, 502, 503,
        ] {
            let error = classify_now(response(code, "text/plain", "why"));
            assert!(matches!(error, ConnectionError::Http { status, .. } if status == code));
        }
    }

    #[test]
    fn portal_32_retry_after_reads_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_767);
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:40:37 GMT", Some(0)),
            ("99999999999999999999999", Some(3600)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                retry_after(text, now),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }

    #[test]
    fn bodies_are_shortened_to_one_printable_line() {
        let body = format!("a\nb\x1b{}", "x".repeat(1000));
        let ConnectionError::Http { detail, .. } = classify_now(response(500, "text/plain", &body))
        else {
            panic!("500 is an HTTP error");
        };
        assert!(detail.starts_with("a b ") && detail.chars().count() <= MAX_DETAIL_CHARS);
    }

    proptest! {
        #[test]
        fn hostile_answers_never_panic(status in any::<u16>(), content in ".{0,40}", retry in ".{0,40}", body in any::<Vec<u8>>()) {
            let _ = classify(
                Response { status, content_type: Some(&content), retry_after: Some(&retry), body: &body },
                SystemTime::UNIX_EPOCH,
            );
        }
    }
}
