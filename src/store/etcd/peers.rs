//! Which keys the programs of each kind use for a name, and which candidate waits for which (DESIGN.md 5.2).
//!
//! ```text
//! program                                    name as given     its keys begin with
//! etcdctl, clientv3/concurrency, ?layout=exact      N          N/
//! holster, ?layout=holster                          N          /elections/clean(N)
//! elect without a layout                            N          <prefix>escaped(N)/       the usual prefix is /elect/
//! ```
//!
//! A name is spelled with and without a slash before it and behind it: `N`, `/N`, `N/` and `/N/` are the same name to a user, and four
//! elections to the programs of the first line; so are `//N` and `//N/`, which programs make that put a slash before `/N`. An elect without a layout is known to them under two names, its boundary and its path
//! (prefix and boundary). Two elects without a layout have exactly one election for a prefix and a boundary: what differs in either is
//! another election, and is not looked for; so is everything below a prefix that is not the usual one.
//!
//! One rule says who waits. A candidate A waits for another one B, and leads only after it,
//!
//! - if B's key is older and A's program counts it: B's key begins with what A's election begins with; or
//! - if B's key is older and A is an elect that looks for it: B's election is among A's [`places`].
//!
//! Of two candidates that may not lead at the same time the younger one waits, if its program does so by this rule; if it does not, the
//! older one has to. So an elect leads beside no candidate that is older, and beside no candidate that would not wait for it. A record
//! says by its field `looks` in which layout its candidate looks; a value without it is of a program that counts its own keys only.

use std::collections::BTreeSet;

use super::layout::{DEFAULT_PREFIX, HOLSTER_PREFIX, Keys, Layout, encode};
use elect_core::boundary::Boundary;

/// The programs whose candidates have their keys at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// An elect without a layout.
    Elect,
    /// etcdctl, a Go program on `clientv3/concurrency`, or an elect with `?layout=exact`.
    Concurrency,
    /// A program on holster's `etcdutil`, or an elect with `?layout=holster`.
    Holster,
}

/// Where an election of the same name may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerElection {
    /// The name of that election, as its programs have it.
    pub name: String,
    /// The common beginning of its keys.
    pub election: String,
    pub program: PeerKind,
}

/// The election of these programs under this name.
fn place(program: PeerKind, name: &str) -> PeerElection {
    let election = match program {
        PeerKind::Elect => format!("{DEFAULT_PREFIX}{}/", encode(name)),
        PeerKind::Concurrency => format!("{name}/"),
        PeerKind::Holster => format!("{HOLSTER_PREFIX}{name}"),
    };
    PeerElection { name: name.to_owned(), election, program }
}

/// The same name with and without slashes around it.
fn spellings(name: &str) -> Vec<String> {
    match name.trim_matches('/') {
        "" => vec![name.to_owned()],
        bare => ["", "/", "//"]
            .iter()
            .flat_map(|before| ["", "/"].map(|behind| format!("{before}{bare}{behind}")))
            .collect(),
    }
}

/// As Go's `path.Join` writes it below another path; `None`: nothing is left of it, or it leads out of there.
fn clean(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// All elections of this name but our own.
pub fn places(keys: &Keys, boundary: &Boundary) -> Vec<PeerElection> {
    let name = boundary.as_str();
    let path = match keys.layout {
        Layout::Elect => format!("{}{name}", keys.prefix),
        Layout::Exact => name.to_owned(),
        Layout::Holster => format!("{HOLSTER_PREFIX}{name}"),
    };
    // As `a%2Fb` the boundary a/b of an elect is there: another one of its own.
    let is_of_others = |path: &String| keys.boundary(format!("{path}/0").as_bytes()).is_none();
    let names = spellings(name).into_iter().chain(spellings(&path).into_iter().filter(is_of_others));
    let mut places: Vec<PeerElection> = names.map(|spelled| place(PeerKind::Concurrency, &spelled)).collect();
    if keys.layout != Layout::Elect {
        places.extend(spellings(name).iter().map(|spelled| place(PeerKind::Elect, spelled)));
    }
    if keys.layout != Layout::Holster {
        let below = path.strip_prefix(HOLSTER_PREFIX);
        let names = below.into_iter().chain([name]).filter_map(clean);
        places.extend(names.map(|name| place(PeerKind::Holster, &name)));
    }
    let mut known = BTreeSet::from([keys.election(boundary)]);
    places.retain(|place| known.insert(place.election.clone()));
    places
}

/// Whether the programs of one election count the keys of the other one.
pub fn counts(theirs: &str, other: &str) -> bool {
    other.starts_with(theirs)
}

/// Whether the elect whose record is in an election, and which looks in this layout, looks for the keys of the other one.
pub fn looks_for(layout: Layout, theirs: &str, other: &str) -> bool {
    let Some((keys, boundary)) = named_by(layout, theirs) else { return false };
    places(&keys, &boundary).iter().any(|place| place.election == other)
}

/// The settings and the boundary of an elect whose keys begin with this.
fn named_by(layout: Layout, election: &str) -> Option<(Keys, Boundary)> {
    let path = election.strip_suffix('/');
    let (prefix, boundary) = match layout {
        Layout::Elect => {
            let (prefix, _) = path?.rsplit_once('/')?;
            let keys = Keys::below(format!("{prefix}/"));
            let boundary = keys.boundary(format!("{election}0").as_bytes())?;
            return Some((keys, boundary));
        }
        Layout::Exact => (DEFAULT_PREFIX, Boundary::shared(path?).ok()?),
        Layout::Holster => (DEFAULT_PREFIX, Boundary::shared(election.strip_prefix(HOLSTER_PREFIX)?).ok()?),
    };
    Some((Keys { layout, ..Keys::below(prefix.to_owned()) }, boundary))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A candidate by the option of its URL, or an etcdctl, and its name.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Peer {
        keys: Option<Keys>,
        name: Boundary,
    }

    impl Peer {
        fn new(option: &str, name: &str) -> Peer {
            let mut keys = Keys::below(if option.starts_with('/') { option } else { DEFAULT_PREFIX }.to_owned());
            let is_elect = option != "etcdctl";
            assert!(!is_elect || option.is_empty() || option.starts_with('/') || keys.take(option), "{option}");
            Peer { keys: is_elect.then_some(keys), name: Boundary::shared(name).expect("a name") }
        }

        fn election(&self) -> String {
            self.keys.as_ref().map_or_else(|| format!("{}/", self.name), |keys| keys.election(&self.name))
        }

        fn looks_at(&self, other: &Peer) -> bool {
            let look = |keys| places(keys, &self.name).iter().any(|place| place.election == other.election());
            self.keys.as_ref().is_some_and(look)
        }

        /// Whether one of them, if it comes second, waits.
        fn waits_for(&self, other: &Peer) -> bool {
            counts(&self.election(), &other.election()) || self.looks_at(other)
        }

        /// Whether the rule makes the older one wait, while the younger one, which does not see it, may lead.
        fn passes(&self, younger: &Peer) -> bool {
            let looks = || {
                let layout = younger.keys.as_ref().filter(|keys| keys.value == ValueForm::Record)?.layout;
                Some(looks_for(layout, &younger.election(), &self.election()))
            };
            !self.looks_at(younger) || counts(&younger.election(), &self.election()) || looks().unwrap_or(false)
        }
    }

    use super::super::layout::ValueForm;

    const NAMES: [&str; 6] = ["mine", "/mine", "mine/", "/mine/", "//mine", "//mine/"];
    const OPTIONS: [&str; 5] = ["", "layout=exact", "layout=holster", "value=name", "etcdctl"];

    fn all() -> Vec<Peer> {
        let pairs = OPTIONS.iter().flat_map(|option| NAMES.map(|name| (*option, name)));
        // Other spellings are refused.
        pairs
            .filter(|(option, name)| *option != "layout=holster" || *name == "mine")
            .map(|(o, n)| Peer::new(o, n))
            .collect()
    }

    #[test]
    fn of_any_two_candidates_of_a_name_the_second_waits_if_it_is_an_elect() {
        for one in all() {
            for other in all() {
                let is_own_kind = |peer: &Peer| peer.keys.as_ref().is_some_and(|keys| keys.layout == Layout::Elect);
                let are_two = one.name != other.name && is_own_kind(&one) && is_own_kind(&other);
                let both_of_others = one.keys.is_none() && other.keys.is_none();
                if are_two || both_of_others {
                    assert!(!one.looks_at(&other), "two names of elect's own: {one:?} {other:?}");
                    continue;
                }
                if one.keys.is_some() {
                    assert!(one.waits_for(&other), "{one:?} leads beside {other:?}, which came first");
                }
                // The older one may lead beside a younger one that waits for it, and no other.
                if one.keys.is_some() && one.passes(&other) {
                    assert!(other.waits_for(&one), "{one:?} passes {other:?}, which does not wait for it");
                }
            }
        }
    }

    #[test]
    fn no_two_elects_of_a_name_wait_for_each_other_for_good() {
        let looking = |peer: &Peer| peer.keys.as_ref().is_some_and(|keys| keys.value == ValueForm::Record);
        for one in all().into_iter().filter(looking) {
            for other in all().into_iter().filter(looking) {
                assert!(one.passes(&other), "the older one leads: {one:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_differs_in_the_prefix_is_another_election_of_elect() {
        for (one, other) in [("", "/staging/"), ("/staging/", ""), ("/staging/", "/live/")] {
            for names in [("cron", "cron"), ("cron", "/cron")] {
                assert!(!Peer::new(one, names.0).looks_at(&Peer::new(other, names.1)), "{one} {other}");
            }
        }
        let below = Peer::new("/staging/", "cron");
        for path in ["staging/cron", "/staging/cron/", "cron", "/cron"] {
            assert!(below.waits_for(&Peer::new("etcdctl", path)), "{path}");
        }
        for path in ["staging/cron", "/staging/cron/"] {
            let exact = Peer::new("layout=exact", path);
            assert!(exact.waits_for(&below) && below.waits_for(&exact) && below.passes(&exact), "{path}");
        }
        let exact = Peer::new("layout=exact", "cron");
        assert!(!exact.looks_at(&below), "a prefix that it does not know");
        assert!(below.looks_at(&exact) && !below.passes(&exact), "so that it waits, even if its key is older");
    }

    #[test]
    fn a_path_is_looked_for_as_other_programs_write_it() {
        let places = |option, name| {
            let peer = Peer::new(option, name);
            let places = super::places(&peer.keys.expect("an elect"), &peer.name);
            places.into_iter().map(|place| place.election).collect::<Vec<_>>()
        };
        assert!(places("/a/", "b/c").contains(&"/a/b/c/".to_owned()), "elect writes b%2Fc");
        assert!(places("", "50%").contains(&"/elect/50%/".to_owned()));
        assert!(!places("", "a%2Fb").contains(&"/elect/a%2Fb/".to_owned()), "another boundary of elect");
        assert!(places("layout=exact", "/elect/cron").contains(&"/elect/%2Felect%2Fcron/".to_owned()));
        assert!(!places("layout=exact", "/elect/cron").contains(&"/elect/cron/".to_owned()), "its own");
        let holster = "/elections/foo".to_owned();
        for (option, name) in [
            ("layout=exact", "/elections//foo/"),
            ("/elections/", "foo"),
            ("", "/foo/"),
            ("layout=exact", "bar/../foo"),
            ("", "./bar/../foo/."),
        ] {
            assert!(places(option, name).contains(&holster), "{option} {name}");
        }
        for name in ["..", "../foo", "foo/..", "foo/../.."] {
            let is_holsters = |place: &&String| place.starts_with(HOLSTER_PREFIX);
            assert_eq!(places("layout=exact", name).iter().find(is_holsters), None, "{name} is not below it");
        }
        assert!(places("layout=holster", "foo").contains(&"/elections/foo/".to_owned()), "etcdctl with the path");
        assert!(places("layout=exact", "/").iter().all(|place| place != "/"), "no name, but a root");
    }

    #[test]
    fn a_record_names_the_elections_that_its_candidate_looks_for() {
        assert!(looks_for(Layout::Elect, "/elect/mine/", "/mine//"));
        assert!(looks_for(Layout::Exact, "/mine//", "/elect/mine/"));
        assert!(!looks_for(Layout::Exact, "/elect/mine/", "mine/"), "it has the whole path for its name");
        assert!(looks_for(Layout::Elect, "/elect/a%2Fb/", "a/b/") && !looks_for(Layout::Elect, "/elect/a/b", "a/b/"));
        assert!(!looks_for(Layout::Elect, "mine/", "/elect/mine/"), "no place of such an elect");
    }
}
