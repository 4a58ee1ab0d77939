//! Names in `/proc` that are not text.

use crate::harness::{ElectCmd, Sandbox, containment_support};

/// Where the tier is not available, elect says so with and without the mount point.
#[test]
fn a_mount_point_that_is_not_text_leaves_the_tier_as_it_is() {
    let has_cgroups = containment_support::is_to_be_had("cgroup");
    let sandbox = Sandbox::new();
    let mounted = r#"d=$(printf '%s/caf\351' "$1"); shift; mkdir "$d" && mount -t tmpfs tmpfs "$d" && exec "$@""#;
    let elect = ElectCmd::new(&sandbox).switch("-q").flag("--containment", "cgroup").command(["true"]);
    let elect = elect.wrapped_by(["unshare", "--mount", "sh", "-c", mounted, "sh"]).wrapped_by([sandbox.path()]);
    let ended = elect.run();
    assert_eq!(ended.status.code() == Some(0), has_cgroups, "{ended:?}");
    assert!(!ended.stderr.contains("UTF-8"), "{ended:?}");
    sandbox.is_left_empty();
}
