//! The tests of every store with leases.

use super::double::ApiServer;

mod handover {
    use super::ApiServer;

    crate::leases::handover::lease_tests!(ApiServer);
}

mod cuts {
    use super::ApiServer;

    crate::leases::cuts::lease_tests!(ApiServer);
}
