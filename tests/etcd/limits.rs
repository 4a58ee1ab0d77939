//! Limits of the process, as every store on a network has to stand them.

use crate::etcd::server::EtcdServer;

crate::resource_limits::limit_tests!(EtcdServer);
