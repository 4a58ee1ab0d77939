//! Limits of the process, as every store on a network has to stand them.

use super::double::ApiServer;

crate::resource_limits::limit_tests!(ApiServer);
