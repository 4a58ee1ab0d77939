//! The tests of every store with leases.

use crate::postgres::server::PostgresServer;

mod handover {
    use super::PostgresServer;

    crate::leases::handover::lease_tests!(PostgresServer);
}

mod cuts {
    use super::PostgresServer;

    crate::leases::cuts::lease_tests!(PostgresServer);
}

#[cfg(feature = "all-stores")]
mod limits {
    use super::PostgresServer;

    crate::resource_limits::limit_tests!(PostgresServer);
}
