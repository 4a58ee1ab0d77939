//! The flag that names the directory of the control sockets, which `run` and the control commands share.

use std::path::PathBuf;

use clap::Args;

/// Where control sockets are.
#[derive(Debug, Clone, Default, Args)]
pub struct RuntimeDirFlag {
    /// The directory of the control sockets [default: by uid, in /run or /tmp]
    ///
    /// For assert, extend, resign, drain, undrain, proclaim and status --self. The default is /run/elect/control for
    /// root, otherwise /tmp/elect-UID/control, for that user alone. A directory that is named here may be shared: if its
    /// group may write to it, that group may control the candidates in it; it needs a group if the command changes its
    /// user. The file store's default directory does not change with it.
    #[arg(long, value_name = "DIR", env = "ELECT_RUNTIME_DIR", help_heading = "Output", hide_short_help = true)]
    pub runtime_dir: Option<PathBuf>,
}
