//! A disk that can be made to stall: its writers wait, everybody else goes on.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::host_tools::{as_root, clean_up};

/// Sparse: what the log of a server reserves for itself (twice 64 MB), not what it takes.
const SIZE: u64 = 256 << 20;

/// A file system of its own in an image on a loop device, frozen and thawed by `fsfreeze`.
///
/// A process that writes to a frozen disk cannot even be killed until it thaws. The writers must have ended before the drop.
#[derive(Debug)]
pub struct StalledDisk {
    directory: TempDir,
    is_frozen: AtomicBool,
}

impl StalledDisk {
    pub fn new() -> StalledDisk {
        let directory = tempfile::Builder::new().prefix("elect-disk-").tempdir().expect("a temporary directory");
        let image = directory.path().join("image");
        File::create(&image).and_then(|file| file.set_len(SIZE)).expect("a sparse file");
        let mounted = directory.path().join("mounted");
        fs::create_dir(&mounted).expect("an empty directory takes another");
        let (image, mounted) = (image.display().to_string(), mounted.display().to_string());
        as_root(["mkfs.ext4", "-q", "-F", &image]);
        // The device goes with the mount.
        as_root(["mount", "-o", "loop", &image, &mounted]);
        StalledDisk { directory, is_frozen: AtomicBool::new(false) }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// All earlier writes are on the disk; later writes wait.
    pub fn freeze(&self) {
        as_root(["fsfreeze", "--freeze", &self.mounted()]);
        self.is_frozen.store(true, Ordering::SeqCst);
    }

    /// All go on. Nothing happens if it is not frozen.
    pub fn thaw(&self) {
        if self.is_frozen.swap(false, Ordering::SeqCst) {
            clean_up(["fsfreeze", "--unfreeze", &self.mounted()]);
        }
    }

    fn mounted(&self) -> String {
        self.path().display().to_string()
    }
}

impl Drop for StalledDisk {
    fn drop(&mut self) {
        self.thaw();
        clean_up(["umount", &self.mounted()]);
    }
}
