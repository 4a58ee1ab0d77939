//! The tests of every store with leases.

use crate::redis::server::RedisServer;

mod handover {
    use super::RedisServer;

    crate::leases::handover::lease_tests!(RedisServer);
}

mod cuts {
    use super::RedisServer;

    crate::leases::cuts::lease_tests!(RedisServer);
}
