//! The configuration: flags, checked for consistency. No I/O.

mod flags;
mod health_flags;
mod runtime_dir_flag;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::duration::parse_duration;
use crate::host_port::HostPort;
#[cfg(feature = "listen")]
use crate::listen_address::ListenAddress;
use crate::store::registry::StoreUrlError;
use crate::store::url::StoreUrl;
use elect_core::boundary::{Boundary, BoundaryError};
use elect_core::limits::{INSIDE_BYTES_MAX, NAME_BYTES_MAX, TTL_MAX};
use elect_core::{
    CampaignLimit, Hooks, OnChange, OnLost, Policy, Restart, RestartWhen, Signal, StopTo, Timing, TimingError,
    TimingFlags,
};
use elect_keeper::{Containment, HookScripts};
use flags::{FollowerFlags, HookFlags, StopToFlag};
pub use flags::{OnLostFlag, RestartFlag, RunFlags, StoreFlags};
pub use runtime_dir_flag::RuntimeDirFlag;

/// Each restart that counts is remembered.
const RESTARTS_MAX: u32 = 1_000;

/// Everything that `elect run` needs to know.
#[derive(Debug)]
pub struct Config {
    /// The boundary to campaign for.
    pub boundary: Boundary,
    /// The name that is shown; `None`: the hostname.
    pub name: Option<String>,
    /// The address for followers; `None`: the hostname, no port.
    pub advertise: Option<HostPort>,
    /// Where the election is held.
    pub store: String,
    /// The lease arithmetic, proven.
    pub timing: Timing,
    /// The signal that asks the command to stop.
    pub stop_signal: i32,
    /// How long it may take to.
    pub stop_timeout: Duration,
    /// The processes that get the stop signal first.
    pub stop_to: StopTo,
    /// The exit status of a candidate that was not elected.
    pub conflict_exit_code: Option<u8>,
    /// By what the command's processes are held together.
    pub containment: Containment,
    /// How long to wait for leadership, and what follows its loss, or the end of the command.
    pub policy: Policy,
    /// Where the pages are.
    #[cfg(feature = "listen")]
    pub listen: Option<ListenAddress>,
    /// The leader command; without any words there is none.
    pub command: Vec<OsString>,
    /// The key of the label of elect's own pod.
    pub pod_label: Option<String>,
    /// A free or expired boundary is taken only after it has had no leader for so long.
    pub takeover_delay: Duration,
    /// Where its control socket is; `None`: in a directory by uid.
    pub runtime_dir: Option<PathBuf>,
    /// The follower and the hooks.
    pub scripts: HookScripts,
    /// The boundaries whose commands we run inside, the outermost first.
    pub inside: Vec<String>,
}

/// An error in the flags. Each is a usage error (exit status 2).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing to campaign for.
    #[error("no boundary: name what is campaigned for with --boundary NAME before the command, or by ELECT_BOUNDARY")]
    NoBoundary,
    /// Nothing to campaign for, inside the command of another boundary: its variable says what that command holds.
    #[error(
        "no boundary: inside a command of elect's, ELECT_BOUNDARY names that command's own; give another with --boundary NAME"
    )]
    NoBoundaryInside,
    /// An impossible name.
    #[error(transparent)]
    Boundary(#[from] BoundaryError),
    /// Names go into records, environments and terminals.
    #[error("{flag} takes at most {NAME_BYTES_MAX} bytes without control characters")]
    Name {
        /// The flag at fault.
        flag: &'static str,
    },
    /// A candidate without a name.
    #[error("{flag} is empty: give a name, or leave it out for the name of this host")]
    EmptyName {
        /// The flag at fault.
        flag: &'static str,
    },
    /// A boundary on which nothing runs.
    #[error("boundary {0} is for elect check, which takes it and gives it back: choose another name")]
    OfCheck(Boundary),
    /// Nothing to run.
    #[error(
        "no command: say what to run while leading, as in: elect run --boundary {0} -- ./job.sh; with --follower, --listen \
         or a hook it may be left out"
    )]
    NoCommand(Boundary),
    /// A follower's flag without a follower.
    #[error("--follower-on-change (ELECT_FOLLOWER_ON_CHANGE) needs a --follower")]
    NoFollower,
    /// A hook that has no time at all can only fail.
    #[error("--hook-timeout must be longer than 0s")]
    ZeroHookTimeout,
    /// Nor can such a check succeed.
    #[error("--health-timeout must be longer than 0s")]
    ZeroHealthTimeout,
    /// The next check would be due while one runs.
    #[error(
        "--health-timeout ({}) is longer than --health-interval ({}): shorten the one, or lengthen the other",
        humantime::format_duration(*.timeout), humantime::format_duration(*.interval)
    )]
    HealthTimeout {
        /// The time-out.
        timeout: Duration,
        /// The interval.
        interval: Duration,
    },
    /// Not a store.
    #[error(transparent)]
    Store(#[from] StoreUrlError),
    /// Timings that do not hold together.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// A lease above the limit: a record with a larger ttl is not accepted (S6).
    #[error("--ttl {} is longer than 24h, the most that a record is believed: give a shorter one", humantime::format_duration(*.0))]
    TtlTooLong(Duration),
    /// A time that the store cannot tell from a shorter one.
    #[error(
        "{flag} {} is too short for {store}: it counts in whole seconds, so {flag} must be at least {}",
        humantime::format_duration(*.found), humantime::format_duration(*.least)
    )]
    TooShort {
        /// The flag.
        flag: &'static str,
        /// The kind of store.
        store: &'static str,
        /// The time.
        found: Duration,
        /// The limit.
        least: Duration,
    },
    /// A text whose limit keeps all that the keeper is told within one message.
    #[error("{what} has {found} bytes, and at most {most} are taken: {advice}")]
    TooLong {
        /// A flag or a variable.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The limit.
        most: usize,
        /// A way out.
        advice: &'static str,
    },
    /// Two answers to one question. Not left to clap, for which a variable of 0 is as good as a 1.
    #[error("--no-wait and --wait exclude each other (ELECT_NO_WAIT and ELECT_WAIT count as well): give one of them")]
    ConflictingWaits,
    /// A spare where there is nothing to take over.
    #[error(
        "--takeover-delay with always: makes no sense, because every candidate leads at once: leave one of them out"
    )]
    DelayWithoutElection,
    /// A label for a pod where there is none.
    #[error(
        "--pod-label labels the pod that elect runs in, and {0}: has no pods: name another store with --store, or leave it out"
    )]
    NoPods(&'static str),
    /// As PID 1 the default directory is this container's own: every replica would lead.
    #[error(
        "as PID 1 the file store has to be named: its default directory is this container's own, so that every replica \
         would lead; use --store file:DIR on a shared volume, or a server"
    )]
    UnnamedFileStore,
    /// Inside a command, campaigning for what that command holds.
    #[error("this runs inside the command of boundary {0}: campaigning for it here would wait for its own end")]
    Inside(Boundary),
}

/// The context of the process; the caller finds it out, since this module does no I/O.
#[derive(Debug, Clone, Default)]
pub struct ProcessContext {
    /// Whether we are PID 1.
    pub is_init: bool,
    /// The boundaries whose commands we run inside, the outermost first.
    pub inside: Vec<String>,
}

impl Config {
    /// Validates what was asked for.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what is wrong and what to change.
    pub fn new(flags: RunFlags, process_context: &ProcessContext) -> Result<Config, ConfigError> {
        let is_inside = !process_context.inside.is_empty();
        let none = if is_inside { ConfigError::NoBoundaryInside } else { ConfigError::NoBoundary };
        let boundary = boundary(flags.boundary.as_deref().ok_or(none)?, &flags)?;
        if boundary.is_of_check() {
            return Err(ConfigError::OfCheck(boundary));
        }
        // By name alone: whether two stores are one cannot be told from their URLs.
        if process_context.inside.iter().any(|outer| outer == boundary.as_str()) {
            return Err(ConfigError::Inside(boundary));
        }
        if flags.command.is_empty() && !runs_anything_else(&flags) {
            return Err(ConfigError::NoCommand(boundary));
        }
        Config::for_boundary(boundary, flags, process_context)
    }

    /// The same for `elect check`, which runs nothing and needs neither a boundary nor a command. Without a boundary it is that of
    /// the check.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], as for a candidate.
    pub fn for_check(flags: RunFlags, process_context: &ProcessContext) -> Result<Config, ConfigError> {
        let boundary = match flags.boundary.as_deref().map(|name| boundary(name, &flags)).transpose()? {
            Some(boundary) if boundary.is_of_check() => return Err(ConfigError::OfCheck(boundary)),
            Some(boundary) => boundary,
            None => Boundary::of_check(),
        };
        Config::for_boundary(boundary, flags, process_context)
    }

    fn for_boundary(
        boundary: Boundary,
        flags: RunFlags,
        process_context: &ProcessContext,
    ) -> Result<Config, ConfigError> {
        let (follower, hooks) = (follower(&flags.following)?, hooks(&flags.hooks)?);
        check_names(&flags)?;
        let inside = process_context.inside.iter().map(|outer| outer.len() + "\n".len()).sum();
        if inside > INSIDE_BYTES_MAX {
            let advice = "too many commands of elect's are inside each other";
            return Err(ConfigError::TooLong { what: "ELECT_INSIDE", found: inside, most: INSIDE_BYTES_MAX, advice });
        }
        is_believed(flags.ttl)?;
        let timing = Timing::validate(TimingFlags {
            ttl: flags.ttl,
            renew: flags.renew,
            request_timeout: flags.request_timeout,
            fence_grace: flags.fence_grace,
        })?;
        let policy = Policy {
            min_hold: flags.min_hold,
            restart: Restart {
                when: match flags.restart {
                    RestartFlag::Never => RestartWhen::Never,
                    RestartFlag::OnFailure => RestartWhen::OnFailure,
                    RestartFlag::Always => RestartWhen::Always,
                },
                delay: flags.restart_delay,
                limit: flags.restart_limit.restarts,
                within: flags.restart_limit.within,
            },
            follower,
            hooks,
            health: flags.health.health()?,
            drained: flags.health.drained,
            ..policy(flags.no_wait, flags.wait, flags.on_lost)?
        };
        let store = StoreUrl::parse(&flags.store.url)?;
        if !flags.takeover_delay.is_zero() && !store.has_election() {
            return Err(ConfigError::DelayWithoutElection);
        }
        check_shortest(&timing, &store)?;
        check_pods(flags.pod_label.as_deref(), &store)?;
        if process_context.is_init && store.is_default_directory() {
            return Err(ConfigError::UnnamedFileStore);
        }
        Ok(Config {
            boundary,
            name: flags.name,
            advertise: flags.advertise,
            store: flags.store.url,
            timing,
            stop_signal: flags.stop_signal.0,
            stop_timeout: flags.stop_timeout,
            stop_to: match flags.stop_to {
                StopToFlag::Main => StopTo::Main,
                StopToFlag::Group => StopTo::Group,
            },
            conflict_exit_code: flags.conflict_exit_code,
            containment: flags.containment.into(),
            policy,
            pod_label: flags.pod_label,
            takeover_delay: flags.takeover_delay,
            #[cfg(feature = "listen")]
            listen: flags.listen,
            command: flags.command,
            runtime_dir: flags.runtime.runtime_dir,
            scripts: HookScripts {
                follower: flags.following.follower.map(OsString::from),
                on_elected: flags.hooks.on_elected.map(OsString::from),
                on_ousted: flags.hooks.on_ousted.map(OsString::from),
                on_change: flags.hooks.on_change.map(OsString::from),
                on_error: flags.hooks.on_error.map(OsString::from),
                hook_timeout: flags.hooks.hook_timeout,
                health: flags.health.script(),
            },
            inside: process_context.inside.clone(),
        })
    }
}

/// The boundary of this name, as the store takes it. A malformed URL is reported with the other flags.
fn boundary(name: &str, flags: &RunFlags) -> Result<Boundary, BoundaryError> {
    StoreUrl::parse(&flags.store.url).map_or_else(|_| name.parse(), |store| store.boundary(name))
}

/// Fails if name or address cannot be shown to people.
fn check_names(flags: &RunFlags) -> Result<(), ConfigError> {
    let host = flags.advertise.as_ref().map(|to| to.host.as_str());
    for (flag, text) in [("--name", flags.name.as_deref()), ("--advertise", host)] {
        if text.is_some_and(str::is_empty) {
            return Err(ConfigError::EmptyName { flag });
        }
        if text.is_some_and(|text| !is_valid_name(text)) {
            return Err(ConfigError::Name { flag });
        }
    }
    Ok(())
}

/// Whether there is anything that a candidate without a leader command could be for.
fn runs_anything_else(flags: &RunFlags) -> bool {
    let HookFlags { on_elected, on_ousted, on_change, on_error, hook_timeout: _ } = &flags.hooks;
    #[cfg(feature = "listen")]
    let listens = flags.listen.is_some();
    #[cfg(not(feature = "listen"))]
    let listens = false;
    listens || [&flags.following.follower, on_elected, on_ousted, on_change, on_error].into_iter().any(Option::is_some)
}

fn follower(flags: &FollowerFlags) -> Result<Option<OnChange>, ConfigError> {
    match (&flags.follower, flags.follower_on_change) {
        (None, Some(_)) => Err(ConfigError::NoFollower),
        (None, None) => Ok(None),
        (Some(_), on_change) => Ok(Some(on_change.map_or(OnChange::Restart, |OnChangeFlag(on_change)| on_change))),
    }
}

fn hooks(flags: &HookFlags) -> Result<Hooks, ConfigError> {
    if flags.hook_timeout.is_zero() {
        return Err(ConfigError::ZeroHookTimeout);
    }
    Ok(Hooks {
        on_elected: flags.on_elected.is_some(),
        on_ousted: flags.on_ousted.is_some(),
        on_change: flags.on_change.is_some(),
        on_error: flags.on_error.is_some(),
        timeout: flags.hook_timeout,
    })
}

/// The effect of a new leader on a follower, in the notation of the flag: `restart`, `ignore`, or a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnChangeFlag(pub OnChange);

impl FromStr for OnChangeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<OnChangeFlag, String> {
        Ok(OnChangeFlag(match text {
            "restart" => OnChange::Restart,
            "ignore" => OnChange::Ignore,
            _ => match text.parse() {
                Ok(SignalName(signal)) => OnChange::Signal(Signal(signal)),
                Err(_) => return Err("say restart, ignore, or a signal to send, like HUP or USR1".to_owned()),
            },
        }))
    }
}

/// Whether a text may be a candidate's name or host: it goes into records, environments and terminals.
#[must_use]
pub fn is_valid_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Whether others will believe this ttl.
///
/// # Errors
///
/// It is longer than [`TTL_MAX`].
pub fn is_believed(ttl: Option<Duration>) -> Result<(), ConfigError> {
    ttl.filter(|ttl| *ttl > TTL_MAX).map_or(Ok(()), |ttl| Err(ConfigError::TtlTooLong(ttl)))
}

/// Fails if the store cannot tell times that are so short.
///
/// # Errors
///
/// [`ConfigError::TooShort`] names the flag.
pub fn check_shortest(timing: &Timing, store: &StoreUrl<'_>) -> Result<(), ConfigError> {
    let (ttl, renew) = store.shortest_times();
    let times = [("--ttl", timing.ttl().unwrap_or(Duration::MAX), ttl), ("--renew", timing.renew(), renew)];
    match times.into_iter().find(|(_, found, least)| found < least) {
        Some((flag, found, least)) => Err(ConfigError::TooShort { flag, store: store.kind().name(), found, least }),
        None => Ok(()),
    }
}

/// Fails if there is no pod to be labelled.
fn check_pods(label: Option<&str>, store: &StoreUrl<'_>) -> Result<(), ConfigError> {
    match label {
        Some(_) if !store.has_pods() => Err(ConfigError::NoPods(store.kind().name())),
        Some(_) | None => Ok(()),
    }
}

/// The campaign limit and the effect of a lost leadership: a bounded wait does not begin again by default.
fn policy(no_wait: bool, wait: Option<Duration>, on_lost: Option<OnLostFlag>) -> Result<Policy, ConfigError> {
    let (campaign_limit, by_default) = match (no_wait, wait) {
        (true, Some(_)) => return Err(ConfigError::ConflictingWaits),
        (true, None) => (CampaignLimit::For(Duration::ZERO), OnLost::End),
        (false, Some(wait)) => (CampaignLimit::For(wait), OnLost::End),
        (false, None) => (CampaignLimit::Unlimited, OnLost::Recampaign),
    };
    let on_lost = match on_lost {
        None => by_default,
        Some(OnLostFlag::Recampaign) => OnLost::Recampaign,
        Some(OnLostFlag::Exit) => OnLost::End,
    };
    Ok(Policy { campaign_limit, on_lost, ..Policy::default() })
}

/// A count within a duration, in the notation of the flag: `5/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimit {
    /// So many restarts at most.
    pub restarts: u32,
    /// Within so long.
    pub within: Duration,
}

impl FromStr for RestartLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<RestartLimit, String> {
        let (restarts, within) =
            text.split_once('/').ok_or("say within how long, as in 5/1m: five restarts in a minute")?;
        let restarts = restarts.trim().parse().map_err(|_| "the first part is a number of restarts, as in 5/1m")?;
        match restarts {
            0 => return Err("no restart at all is --restart never; otherwise at least 1".to_owned()),
            1..=RESTARTS_MAX => {}
            _ => return Err(format!("at most {RESTARTS_MAX} restarts can be counted: take a shorter time instead")),
        }
        let within = parse_duration(within)?;
        if within.is_zero() {
            return Err("the time must be longer than 0s, as in 5/1m".to_owned());
        }
        Ok(RestartLimit { restarts, within })
    }
}

/// A signal in the notation of flags: `TERM`, `SIGTERM`, `15`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalName(pub i32);

impl FromStr for SignalName {
    type Err = String;

    fn from_str(text: &str) -> Result<SignalName, String> {
        let number = signal_number(text)?;
        if number == libc::SIGSTOP {
            return Err(
                "STOP freezes a process instead of asking anything of it: give another, like TERM or INT".to_owned()
            );
        }
        Ok(SignalName(number))
    }
}

fn signal_number(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err("signals are numbered 1 to 64".to_owned()) };
    }
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    nix::sys::signal::Signal::from_str(&name)
        .map(|signal| signal as i32)
        .map_err(|_| "not the name of a signal, like TERM or INT".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    #[test]
    fn a_bounded_wait_ends_with_its_leadership_unless_that_is_said() {
        let wait = Duration::from_millis(500);
        let at_most = |campaign_limit| CampaignLimit::For(campaign_limit);
        for (no_wait, wait, on_lost, campaign_limit, expected) in [
            (false, None, None, CampaignLimit::Unlimited, OnLost::Recampaign),
            (false, None, Some(OnLostFlag::Exit), CampaignLimit::Unlimited, OnLost::End),
            (true, None, None, at_most(Duration::ZERO), OnLost::End),
            (true, None, Some(OnLostFlag::Recampaign), at_most(Duration::ZERO), OnLost::Recampaign),
            (false, Some(wait), None, at_most(wait), OnLost::End),
            (false, Some(wait), Some(OnLostFlag::Recampaign), at_most(wait), OnLost::Recampaign),
        ] {
            let policy = policy(no_wait, wait, on_lost).expect("consistent");
            assert_eq!(
                (policy.campaign_limit, policy.on_lost),
                (campaign_limit, expected),
                "{no_wait} {wait:?} {on_lost:?}"
            );
        }
        assert!(matches!(policy(true, Some(Duration::ZERO), None), Err(ConfigError::ConflictingWaits)));
    }

    #[test]
    fn a_restart_limit_is_a_number_and_a_duration() {
        let limit = |restarts, seconds| Ok(RestartLimit { restarts, within: Duration::from_secs(seconds) });
        assert_eq!("5/1m".parse(), limit(5, 60));
        assert_eq!("1/10".parse(), limit(1, 10));
        assert_eq!(" 3 / 1m 30s ".parse(), limit(3, 90));
        for text in
            ["", "5", "/", "5/", "/1m", "0/1m", "5/0", "5/0s", "-1/1m", "1.5/1m", "5/1m/2", "1001/1s", "5 per 1m"]
        {
            let error = text.parse::<RestartLimit>().expect_err(text);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_change_of_the_leader_restarts_a_follower_or_is_a_signal_or_nothing() {
        let signal = |signal| OnChange::Signal(Signal(signal));
        for (text, expected) in [
            ("restart", OnChange::Restart),
            ("ignore", OnChange::Ignore),
            ("USR1", signal(10)),
            ("SIGUSR1", signal(10)),
            ("hup", signal(1)),
            ("12", signal(12)),
        ] {
            assert_eq!(text.parse(), Ok(OnChangeFlag(expected)), "{text}");
        }
        for text in ["", "SIGNAL", "RESTART ", "none", "0", "65"] {
            let error = text.parse::<OnChangeFlag>().expect_err(text);
            assert!(error.contains("restart, ignore"), "{error}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(text.parse(), Ok(SignalName(15)));
        }
        for text in ["0", "65", "-1", "TERMINATE", "", "STOP", "19"] {
            assert!(text.parse::<SignalName>().is_err(), "{text}");
        }
    }

    #[test]
    fn any_text_is_a_value_or_is_told_why_not() {
        fn error<T: FromStr<Err = String>>(text: &str) -> Option<String> {
            text.parse::<T>().err()
        }
        let unit = proptest::sample::select(vec!["", "s", "ms", "m", "h", "d", "/1m", "y", "ns", "e9", "."]);
        let amount = (any::<u64>(), unit).prop_map(|(number, unit)| format!("{number}{unit}"));
        let bracketed = (proptest_support::punctuation(), proptest_support::punctuation())
            .prop_map(|(one, other)| format!("[{one}]{other}"));
        let texts = prop_oneof![proptest_support::text(), proptest_support::punctuation(), bracketed, amount];
        proptest_support::check(proptest_support::FAST, &texts, |text| {
            let errors = [
                parse_duration(&text).err(),
                error::<RestartLimit>(&text),
                error::<SignalName>(&text),
                error::<OnChangeFlag>(&text),
                error::<HostPort>(&text),
            ];
            for error in errors.into_iter().flatten() {
                assert_eq!(error.lines().count(), 1, "{error}");
            }
            if let Ok(address) = text.parse::<HostPort>() {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        });
    }
}
