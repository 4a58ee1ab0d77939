//! The flags that decide whether a candidate may campaign: the health check, and the drain.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::ConfigError;
use super::flags::boolean;
use crate::duration::parse_duration;
use elect_core::Health;
use elect_keeper::HealthScript;

/// The largest number of results in a row that can be asked for.
const IN_A_ROW_MAX: i64 = 1_000;

/// The health check, and the drain.
#[derive(Debug, Args)]
pub struct HealthFlags {
    /// A check: lead only while it succeeds, by sh -c
    ///
    /// Status 0 is healthy. elect campaigns only after --health-rise successes in a row; a leader whose check fails
    /// --health-fall times in a row stops its command and releases the boundary, and campaigns again once it is healthy.
    /// If no candidate is healthy, none leads. A check has `ELECT_ROLE`, and while this candidate leads also `ELECT_TERM`;
    /// it runs beside the command, is killed at its time-out with all that it has started, and never delays a renewal.
    /// With -n or --wait elect exits instead: with 76 if it was leading, otherwise with 75.
    #[arg(
        long, value_name = "CMD", env = "ELECT_HEALTH", value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Following, hooks and health"
    )]
    pub health: Option<String>,

    /// From the start of a check to that of the next
    #[arg(
        long, value_name = "DURATION", env = "ELECT_HEALTH_INTERVAL", default_value = "5s", value_parser = parse_duration,
        help_heading = "Following, hooks and health", hide_short_help = true
    )]
    pub health_interval: Duration,

    /// How long a check may take: at most the interval
    #[arg(
        long, value_name = "DURATION", env = "ELECT_HEALTH_TIMEOUT", default_value = "3s", value_parser = parse_duration,
        help_heading = "Following, hooks and health", hide_short_help = true
    )]
    pub health_timeout: Duration,

    /// How many successes in a row make this candidate healthy
    #[arg(
        long, value_name = "N", env = "ELECT_HEALTH_RISE", default_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=IN_A_ROW_MAX), help_heading = "Following, hooks and health",
        hide_short_help = true
    )]
    pub health_rise: u32,

    /// How many failures in a row make it unhealthy
    ///
    /// Each further leadership in a row that ends in this way is followed by a longer rest: the interval, doubled each
    /// time up to 5m, until a leadership has lasted for 5m.
    #[arg(
        long, value_name = "N", env = "ELECT_HEALTH_FALL", default_value = "3",
        value_parser = clap::value_parser!(u32).range(1..=IN_A_ROW_MAX), help_heading = "Following, hooks and health",
        hide_short_help = true
    )]
    pub health_fall: u32,

    /// Ignore failures for this long after the command's start
    #[arg(
        long, value_name = "DURATION", env = "ELECT_HEALTH_START", default_value = "0s", value_parser = parse_duration,
        help_heading = "Following, hooks and health", hide_short_help = true
    )]
    pub health_start: Duration,

    /// Start drained: campaign only after elect undrain
    #[arg(long, env = "ELECT_DRAINED", value_parser = boolean, num_args = 0..=1, require_equals = true,
        default_value = "0", default_missing_value = "1", hide_default_value = true, hide_possible_values = true,
        value_name = "1|0", help_heading = "Following, hooks and health", hide_short_help = true)]
    pub drained: bool,
}

impl HealthFlags {
    /// The pace of the check, if there is one.
    ///
    /// # Errors
    ///
    /// The interval is zero, or shorter than the time-out.
    pub(super) fn health(&self) -> Result<Option<Health>, ConfigError> {
        if self.health.is_none() {
            return Ok(None);
        }
        if self.health_timeout.is_zero() {
            return Err(ConfigError::ZeroHealthTimeout);
        }
        if self.health_timeout > self.health_interval {
            return Err(ConfigError::HealthTimeout { timeout: self.health_timeout, interval: self.health_interval });
        }
        Ok(Some(Health {
            interval: self.health_interval,
            timeout: self.health_timeout,
            rise: self.health_rise,
            fall: self.health_fall,
            start: self.health_start,
        }))
    }

    /// The check as the keeper runs it.
    pub(super) fn script(&self) -> Option<HealthScript> {
        let script = self.health.as_ref().map(OsString::from)?;
        Some(HealthScript { script, timeout: self.health_timeout })
    }
}
