//! Values of flags and environment variables as people write them.

/// Reads a boolean: 1/0, true/false, yes/no, on/off; empty is false.
///
/// # Errors
///
/// With a sentence for the user, for anything else.
pub fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" | "" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_as_people_write_them() {
        assert_eq!(parse_boolean("Yes"), Ok(true));
        assert_eq!(parse_boolean("0"), Ok(false));
        assert!(parse_boolean("maybe").is_err());
    }
}
