//! Where the keys of an election are, and what they hold: in elect's own layout, or in that of other programs.
//!
//! ```text
//! elect     <prefix><boundary>/<lease in hex>     a slash and a % of the boundary are escaped
//! exact     <boundary>/<lease in hex>             as etcdctl and Go programs on clientv3/concurrency name an election
//! holster   /elections/<boundary><lease in hex>   as etcdutil of mailgun/holster does, with no slash between
//! ```
//!
//! In each of them the oldest key of all that begin with the part before the lease leads, whoever has written it. The last layout
//! has no mark where a name ends, so that `job` counts the candidates of `job2` as well; so do the programs that it comes from.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, percent_decode, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::terms::Scheme;
use elect_core::boundary::{Boundary, BoundaryError};

/// The prefix of elect's own layout, unless the URL names another.
pub const DEFAULT_PREFIX: &str = "/elect/";
/// Before the name of an election of holster's.
pub const HOLSTER_PREFIX: &str = "/elections/";

/// The first part of the keys of last terms: those of no election begin with it.
pub const TERM_KEYS: &str = "elect.term";

/// `a/b` must not be found below `a`, and what stands for a slash must not be written by hand.
const RESERVED: &AsciiSet = &AsciiSet::EMPTY.add(b'/').add(b'%');

/// Whose layout the keys have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    #[default]
    Elect,
    /// That of etcd's own `concurrency.Election`, with a name of any form.
    Exact,
    /// That of mailgun's `etcdutil`.
    Holster,
}

/// The content of a candidate's key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueForm {
    /// All that elect shows of a candidate, in JSON.
    #[default]
    Record,
    /// The candidate's name alone, as other programs expect it.
    Name,
}

/// The keys of elections: where they are, what they hold, and how terms are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Before every key of elect's own layout; ends with a slash.
    pub prefix: String,
    /// How terms are counted.
    #[serde(default)]
    pub terms: Scheme,
    #[serde(default)]
    pub layout: Layout,
    #[serde(default)]
    pub value: ValueForm,
    /// Whether candidates of the same name in other layouts are no concern of this election.
    #[serde(default)]
    pub ignores_others: bool,
}

impl Layout {
    /// As records and the URL name it.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Elect => "elect",
            Layout::Exact => "exact",
            Layout::Holster => "holster",
        }
    }

    pub fn named(name: &str) -> Option<Layout> {
        [Layout::Elect, Layout::Exact, Layout::Holster].into_iter().find(|layout| layout.name() == name)
    }
}

impl Keys {
    /// Those of elect's own layout below a prefix.
    pub fn below(prefix: String) -> Keys {
        Keys {
            prefix,
            terms: Scheme::default(),
            layout: Layout::default(),
            value: ValueForm::default(),
            ignores_others: false,
        }
    }

    /// Takes in one option of a URL; false: it is not known.
    pub fn take(&mut self, option: &str) -> bool {
        match option {
            "term=revision" => self.terms = Scheme::Revision,
            "layout=exact" => self.layout = Layout::Exact,
            "layout=holster" => self.layout = Layout::Holster,
            "value=name" => self.value = ValueForm::Name,
            "others=ignore" => self.ignores_others = true,
            _ => return false,
        }
        // An election that other programs take part in has no place for a term but etcd's own revision.
        if self.layout == Layout::Holster {
            self.value = ValueForm::Name;
        }
        if self.is_shared() {
            self.terms = Scheme::Revision;
        }
        true
    }

    /// The options with which a URL asks for these keys.
    pub fn options(&self) -> String {
        let options = [
            self.terms.name().filter(|_| !self.is_shared()).map(|_| "term=revision"),
            match self.layout {
                Layout::Elect => None,
                Layout::Exact => Some("layout=exact"),
                Layout::Holster => Some("layout=holster"),
            },
            (self.value == ValueForm::Name && self.layout != Layout::Holster).then_some("value=name"),
            self.ignores_others.then_some("others=ignore"),
        ];
        let options: Vec<&str> = options.into_iter().flatten().collect();
        if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) }
    }

    /// Whether the keys or what they hold are as other programs have them.
    fn is_shared(&self) -> bool {
        self.layout != Layout::Elect || self.value != ValueForm::Record
    }

    /// The same for one boundary. That of `elect check` is no election of other programs.
    pub fn of(&self, boundary: &Boundary) -> Cow<'_, Keys> {
        if boundary.is_of_check() && self.is_shared() {
            Cow::Owned(Keys { ignores_others: self.ignores_others, ..Keys::below(self.prefix.clone()) })
        } else {
            Cow::Borrowed(self)
        }
    }

    /// The common beginning of the keys of a boundary's candidates.
    pub fn election(&self, boundary: &Boundary) -> String {
        match self.layout {
            Layout::Elect => format!("{}{}/", self.prefix, encode(boundary.as_str())),
            Layout::Exact => format!("{boundary}/"),
            Layout::Holster => format!("{HOLSTER_PREFIX}{boundary}"),
        }
    }

    /// The key of the candidate that holds this lease.
    pub fn candidate(&self, boundary: &Boundary, lease: i64) -> String {
        format!("{}{lease:x}", self.election(boundary))
    }

    /// The beginning of the keys of all boundaries, where one can be told.
    pub fn all(&self) -> Option<&str> {
        (self.layout == Layout::Elect).then_some(self.prefix.as_str())
    }

    /// The boundary that a key of elect's own layout is about, if it is about one.
    pub fn boundary(&self, key: &[u8]) -> Option<Boundary> {
        let rest = key.strip_prefix(self.prefix.as_bytes()).filter(|_| self.layout == Layout::Elect)?;
        let slash = rest.iter().position(|&byte| byte == b'/')?;
        let (name, lease) = (&rest[..slash], &rest[slash + 1..]);
        if lease.is_empty() || !lease.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let boundary: Boundary = percent_decode(name).decode_utf8().ok()?.parse().ok()?;
        // Written in another way it would be a second queue for the same name.
        (encode(boundary.as_str()).as_bytes() == name).then_some(boundary)
    }
}

/// The name of a boundary, as this layout takes it.
///
/// # Errors
///
/// [`BoundaryError`]: it is none, or other programs would write it in another way.
pub fn named(layout: Layout, name: &str) -> Result<Boundary, BoundaryError> {
    match layout {
        Layout::Elect => name.parse(),
        // Go's path.Join would make another name of it.
        Layout::Holster if name.split('/').any(|part| ["", ".", ".."].contains(&part)) && !name.is_empty() => {
            Err(BoundaryError::NotClean { option: "?layout=holster", name: name.to_owned() })
        }
        // The keys of last terms, which have no end.
        Layout::Exact
            if name == TERM_KEYS || name.strip_prefix(TERM_KEYS).is_some_and(|rest| rest.starts_with('/')) =>
        {
            Err(BoundaryError::Reserved { option: "?layout=exact", name: name.to_owned() })
        }
        Layout::Exact | Layout::Holster => Boundary::shared(name),
    }
}

/// A boundary's name as one part of a path.
pub fn encode(name: &str) -> String {
    // Bytes beyond ASCII stay as they are: a key is bytes to etcd, and UTF-8 is readable.
    let mut encoded = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii() {
            let mut buffer = [0; 4];
            encoded.extend(utf8_percent_encode(c.encode_utf8(&mut buffer), RESERVED));
        } else {
            encoded.push(c);
        }
    }
    encoded
}

/// Whether a key is that of a candidate whose election's keys begin with this: its own lease follows, and nothing else.
pub fn is_candidate(election: &str, key: &[u8], lease: i64) -> bool {
    lease != 0 && key.strip_prefix(election.as_bytes()).is_some_and(|rest| rest == format!("{lease:x}").as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    fn name(text: &str) -> Boundary {
        text.parse().expect("a name")
    }

    fn own() -> Keys {
        Keys::below(DEFAULT_PREFIX.to_owned())
    }

    fn with(option: &str) -> Keys {
        let mut keys = own();
        assert!(keys.take(option), "{option}");
        keys
    }

    #[test]
    fn no_boundary_lies_below_another() {
        let keys = own();
        let names = ["a", "a/b", "a2", "a%2Fb", "ä/ö", "a b", "%"];
        for one in names {
            let key = keys.candidate(&name(one), 0x1f);
            assert_eq!(keys.boundary(key.as_bytes()), Some(name(one)), "{key}");
            for other in names.iter().filter(|&&other| other != one) {
                assert!(!key.starts_with(&keys.election(&name(other))), "{key} lies below {other}");
            }
        }
        assert_eq!(keys.candidate(&name("cron"), 0x694d_71dd), "/elect/cron/694d71dd");
    }

    #[test]
    fn keys_that_are_nobodys_candidacy_are_passed_by() {
        for key in ["/elect/", "/elect/a", "/elect/a/", "/elect/a/xyz", "/other/a/1", "/elect/a/b/1", "/elect//1"] {
            assert_eq!(own().boundary(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn any_key_is_nobodys_or_lies_below_one_boundary() {
        let all = own();
        let path = || prop_oneof![proptest_support::text(), proptest_support::punctuation()];
        let keys = (path(), path()).prop_map(|(one, other)| format!("/elect/{one}/{other}").into_bytes());
        proptest_support::check(proptest_support::FAST, &prop_oneof![proptest_support::random_bytes(), keys], |key| {
            if let Some(found) = all.boundary(&key) {
                assert!(key.starts_with(all.election(&found).as_bytes()));
            }
        });
        proptest_support::check(proptest_support::FAST, &(path(), 1..=i64::MAX), |(text, lease)| {
            if let Ok(name) = text.parse() {
                assert_eq!(all.boundary(all.candidate(&name, lease).as_bytes()), Some(name));
            }
        });
    }

    #[test]
    fn other_programs_find_the_keys_where_they_look_for_them() {
        let exact = with("layout=exact");
        for (boundary, key) in [
            ("mine", "mine/1f"),
            ("/mine", "/mine/1f"),
            ("/my-election/", "/my-election//1f"),
            ("a//b", "a//b/1f"),
            ("50%", "50%/1f"),
        ] {
            assert_eq!(exact.candidate(&name(boundary), 0x1f), key);
        }
        assert_eq!(with("layout=holster").candidate(&name("presidental"), 0x1f), "/elections/presidental1f");
        assert_eq!(with("value=name").candidate(&name("cron"), 0x1f), "/elect/cron/1f");
        assert_eq!(exact.candidate(&Boundary::of_check(), 1), "elect-check/1");
        assert_eq!(exact.of(&Boundary::of_check()).candidate(&Boundary::of_check(), 1), "/elect/elect-check/1");
    }

    #[test]
    fn terms_are_revisions_where_other_programs_take_part() {
        for option in ["layout=exact", "layout=holster", "value=name", "term=revision"] {
            let keys = with(option);
            assert_eq!((keys.terms, keys.options()), (Scheme::Revision, format!("?{option}")));
        }
        assert_eq!(with("layout=holster").value, ValueForm::Name);
        assert_eq!((own().options().as_str(), own().terms), ("", Scheme::Stored));
        assert!(!own().take("layout=elect") && !own().take("value=json"));
        assert_eq!(with("others=ignore").terms, Scheme::Stored);
    }

    #[test]
    fn a_name_that_the_other_program_would_rewrite_is_refused() {
        for text in ["/foo", "foo/", "a//b", "a/../b", "."] {
            assert!(matches!(named(Layout::Holster, text), Err(BoundaryError::NotClean { .. })), "{text}");
            assert!(named(Layout::Exact, text).is_ok(), "{text}");
        }
        let long = "x".repeat(200);
        assert!(named(Layout::Holster, &long).is_ok() && named(Layout::Exact, &long).is_ok());
        assert!(named(Layout::Elect, &long).is_err());
        assert_eq!(named(Layout::Holster, ""), Err(BoundaryError::Empty));
    }

    #[test]
    fn no_election_is_where_the_last_terms_are() {
        for text in ["elect.term", "elect.term/", "elect.term//elect/cron"] {
            assert!(matches!(named(Layout::Exact, text), Err(BoundaryError::Reserved { .. })), "{text}");
            assert!(named(Layout::Elect, text).is_ok() && with("term=revision").election(&name(text)).starts_with('/'));
        }
        assert!(named(Layout::Exact, "elect.terms").is_ok() && named(Layout::Exact, "/elect.term").is_ok());
    }

    #[test]
    fn a_candidates_key_ends_with_its_own_lease() {
        assert!(is_candidate("/elections/foo", b"/elections/foo1f", 0x1f));
        for (key, lease) in [("/elections/foobar1f", 0x1f), ("/elections/foo/1f", 0x1f), ("/elections/foo1f", 0)] {
            assert!(!is_candidate("/elections/foo", key.as_bytes(), lease), "{key}");
        }
    }
}
