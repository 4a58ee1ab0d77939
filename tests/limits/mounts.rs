//! Names in `/proc` that are not text.

use crate::harness::{Elect, Place, tiers};

/// Where the tier is not to be had, elect says so with and without the mount point.
#[test]
fn a_mount_point_that_is_not_text_leaves_the_tier_as_it_is() {
    let has_cgroups = tiers::is_to_be_had("cgroup");
    let place = Place::new();
    let mounted = r#"d=$(printf '%s/caf\351' "$1"); shift; mkdir "$d" && mount -t tmpfs tmpfs "$d" && exec "$@""#;
    let elect = Elect::new(&place).switch("-q").flag("--containment", "cgroup").command(["true"]);
    let elect = elect.under(["unshare", "--mount", "sh", "-c", mounted, "sh"]).under([place.path()]);
    let ended = elect.run();
    assert_eq!(ended.status.code() == Some(0), has_cgroups, "{ended:?}");
    assert!(!ended.stderr.contains("UTF-8"), "{ended:?}");
    place.is_left_empty();
}
