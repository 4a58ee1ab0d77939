//! What every store with leases has to stand.

use crate::harness::redis::Redis;

mod handover {
    use super::Redis;

    crate::leases::handover::on!(Redis);
}

mod cuts {
    use super::Redis;

    crate::leases::cuts::on!(Redis);
}
