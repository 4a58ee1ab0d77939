//! Durations as command lines and variables write them.

use std::time::Duration;

use elect_core::HumanDuration;

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

/// A duration as precise as people need it: to 10 ms below a second, to 100 ms below a minute, to seconds above.
#[must_use]
pub fn about(duration: Duration) -> HumanDuration {
    let unit: u32 = match duration.as_secs() {
        0 => 10,
        1..60 => 100,
        _ => 1000,
    };
    let units = (duration + Duration::from_millis(u64::from(unit / 2))).as_millis() / u128::from(unit);
    HumanDuration(Duration::from_millis(u64::try_from(units).unwrap_or(u64::MAX).saturating_mul(u64::from(unit))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use elect_core::proptest_support;

    #[test]
    fn a_limit_is_shown_as_people_would_say_it() {
        let shown = |micros| about(Duration::from_micros(micros)).to_string();
        assert_eq!(shown(399_300), "400ms");
        assert_eq!(shown(4_999_400), "5s");
        assert_eq!(shown(999_900), "1s");
        assert_eq!(shown(2_349_000), "2.3s");
        assert_eq!(shown(61_400_000), "1m 1s");
        assert_eq!(shown(0), "0ms");
    }

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
