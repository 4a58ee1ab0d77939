//! The lines about health checks and drains.

use tracing::{info, warn};

use super::name;
use elect_core::{CheckEnd, CommandEnd, HumanDuration, Notice};

/// Logs a change of a reason why the candidate may not campaign.
pub(super) fn changed(notice: &Notice) {
    if let Notice::Unhealthy { failures, last } = notice {
        let times = if *failures == 1 { "once".to_owned() } else { format!("{failures} times in a row") };
        warn!("not healthy: the health check has failed {times} ({})", failure(*last));
    } else if let Notice::LongUnhealthy { time } = notice {
        let time = HumanDuration(*time);
        warn!("not healthy for {time}: this candidate does not lead until its health check succeeds");
    } else if *notice == Notice::Healthy {
        info!("healthy: the health check succeeds");
    } else if *notice == Notice::Drained {
        info!("drained: no campaign before elect undrain");
    } else if *notice == Notice::Undrained {
        info!("not drained any more");
    }
}

fn failure(end: CheckEnd) -> String {
    match end {
        CheckEnd::Ended(CommandEnd::Exited(status)) => format!("status {status}"),
        CheckEnd::Ended(CommandEnd::Killed { signal, .. }) => format!("ended by {}", name(signal)),
        CheckEnd::TimedOut => "no result within --health-timeout".to_owned(),
        CheckEnd::Failed(libc::EBUSY) => "an earlier check has not ended: SIGKILL does not end it".to_owned(),
        CheckEnd::Failed(errno) => format!("it cannot be started: {}", std::io::Error::from_raw_os_error(errno)),
        CheckEnd::Interrupted => "interrupted".to_owned(),
    }
}
