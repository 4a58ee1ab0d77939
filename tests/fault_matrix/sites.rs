//! Servers for the runs of the matrix: one for all runs that do not hurt it, one of its own for each of the others.
//!
//! A site that a run has left in order serves the next one. It is replaced after a number of runs, because every boundary leaves
//! a record behind, and in some stores a database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::harness::Sandbox;
use crate::harness::store_fixtures::{FailoverServers, FixtureStore, StoreEntry};
use crate::harness::wallclock::WallClock;

/// Runs until a server is replaced.
const USES_MAX: usize = 150;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SiteKind {
    /// Other runs use the server at the same time.
    Shared,
    Own,
    /// With a wall clock for candidates, and for a server of its own where the store can have one.
    Clocked,
    /// Several servers.
    Failover,
}

/// Where a run takes place.
pub struct Site {
    servers: Servers,
    clock: Option<WallClock>,
    uses: usize,
}

enum Servers {
    Shared(Arc<dyn FixtureStore>),
    Own(Box<dyn FixtureStore>),
    Failover(Box<dyn FailoverServers>),
}

impl Site {
    fn start(entry: &'static StoreEntry, kind: SiteKind, shared: impl FnOnce() -> Arc<dyn FixtureStore>) -> Site {
        let clock = (kind == SiteKind::Clocked).then(WallClock::new);
        let servers = match kind {
            SiteKind::Shared => Servers::Shared(shared()),
            SiteKind::Own => Servers::Own((entry.fixtures[0])()),
            SiteKind::Clocked => match (entry.start_with_clock, &clock) {
                (Some(start), Some(clock)) => Servers::Own(start(clock.words())),
                (None, _) | (_, None) => Servers::Shared(shared()),
            },
            SiteKind::Failover => Servers::Failover(entry.start_failover.expect("the cell has no obstacle")()),
        };
        Site { servers, clock, uses: 0 }
    }

    /// For `--store`, with keys of this sandbox alone.
    pub fn url(&self, sandbox: &Sandbox) -> String {
        match &self.servers {
            Servers::Shared(server) => sandbox.below(&server.url(sandbox)),
            Servers::Own(server) => sandbox.below(&server.url(sandbox)),
            Servers::Failover(servers) => sandbox.below(&servers.url()),
        }
    }

    /// The one server.
    pub fn server(&self) -> &dyn FixtureStore {
        match &self.servers {
            Servers::Shared(server) => server.as_ref(),
            Servers::Own(server) => server.as_ref(),
            Servers::Failover(_) => panic!("there are several"),
        }
    }

    /// The shortest lease of the tests on it.
    pub fn lease(&self) -> Duration {
        match &self.servers {
            Servers::Shared(server) => server.lease(),
            Servers::Own(server) => server.lease(),
            Servers::Failover(_) => Duration::ZERO,
        }
    }

    /// The several.
    pub fn failover(&self) -> &dyn FailoverServers {
        match &self.servers {
            Servers::Failover(servers) => servers.as_ref(),
            Servers::Shared(_) | Servers::Own(_) => panic!("there is one"),
        }
    }

    pub fn clock(&self) -> &WallClock {
        self.clock.as_ref().expect("a site with a clock")
    }
}

/// All sites of a store that are not in use, by kind; and the server that all share.
#[derive(Default)]
pub struct Sites {
    idle: Mutex<HashMap<(&'static str, SiteKind), Vec<Site>>>,
    shared: Mutex<HashMap<&'static str, SharedServer>>,
}

struct SharedServer {
    server: Arc<dyn FixtureStore>,
    uses: usize,
}

impl Sites {
    pub fn take(&self, entry: &'static StoreEntry, kind: SiteKind) -> Site {
        let idle = locked(&self.idle).entry((entry.name, kind)).or_default().pop();
        let mut site = idle.unwrap_or_else(|| Site::start(entry, kind, || self.shared(entry)));
        site.uses += 1;
        site
    }

    /// After a run that has left the servers as it found them. A server whose clock was stepped is not among them: to set its
    /// clock right is another step, and some servers that are set back just after a write confirm no write until their clock
    /// has caught up.
    pub fn give_back(&self, entry: &'static StoreEntry, kind: SiteKind, site: Site) {
        if !matches!(kind, SiteKind::Shared | SiteKind::Clocked) && site.uses < USES_MAX {
            locked(&self.idle).entry((entry.name, kind)).or_default().push(site);
        }
    }

    fn shared(&self, entry: &'static StoreEntry) -> Arc<dyn FixtureStore> {
        let mut shared = locked(&self.shared);
        if shared.get(entry.name).is_none_or(|shared| shared.uses >= USES_MAX) {
            shared.insert(entry.name, SharedServer { server: Arc::from((entry.fixtures[0])()), uses: 0 });
        }
        let shared = shared.get_mut(entry.name).expect("inserted");
        shared.uses += 1;
        Arc::clone(&shared.server)
    }
}

/// A run that panicked may have done so while it held it; nothing in it is half done.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
