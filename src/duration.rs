//! Durations as command lines and variables write them.

use std::time::Duration;

/// Parses a duration: `1m 30s`, `500ms`, or bare seconds like `10` and `0.5`.
///
/// # Errors
///
/// Says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(366 * 24 * 60 * 60);
    let parsed = match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text.trim()).map_err(|error| error.to_string()),
    };
    match parsed {
        Ok(duration) if duration > longest => Err("longer than a year".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it like 10s, 500ms or 1m 30s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elect_core::proptest_support;

    #[test]
    fn durations_are_what_people_write() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "-1", "ten", "1x", "inf", "NaN", "99999999999999999999", "2years"] {
            let error = parse_duration(text).expect_err(text);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn any_duration_comes_back_as_it_is_written() {
        let year = 366_u64 * 24 * 60 * 60;
        proptest_support::check(proptest_support::FAST, &(0..year, 0..1_000_000_000_u32), |(seconds, nanos)| {
            let written = Duration::new(seconds, nanos);
            assert_eq!(parse_duration(&humantime::format_duration(written).to_string()), Ok(written));
            assert_eq!(parse_duration(&seconds.to_string()), Ok(Duration::from_secs(seconds)));
        });
    }
}
