//! The messages about elections of the same name and about keys that count in our own one.

use etcd_client::KeyValue;

use super::super::keys;
use super::super::layout::{HOLSTER_PREFIX, Keys, Layout};
use super::super::peers::{PeerElection, PeerKind};
use super::super::terms::quoted;
use super::KEYS_MAX;
use crate::text::{escaped, is_unsafe};
use elect_core::limits::{NAME_BYTES_MAX, cut_visibly};

/// The longest key that is repeated as a whole.
const WORD_BYTES_MAX: usize = 2048;

pub fn shown(bytes: &[u8]) -> String {
    escaped(&cut_visibly(&String::from_utf8_lossy(bytes), NAME_BYTES_MAX)).into_owned()
}

/// The key that is there, and the way out.
pub fn describe(place: &PeerElection, pair: &KeyValue) -> String {
    advice(place, pair.key(), keys::is_of_elect(&place.election, pair))
}

fn advice(place: &PeerElection, key: &[u8], is_of_elect: bool) -> String {
    let (whose, options) = match place.program {
        PeerKind::Elect => ("etcdctl or a Go program", "no layout in --store"),
        PeerKind::Concurrency => ("etcdctl or a Go program", "--store 'etcd://…?layout=exact'"),
        PeerKind::Holster => ("a program on holster's etcdutil", "--store 'etcd://…?layout=holster'"),
    };
    let whose = if is_of_elect { "an elect with other options" } else { whose };
    let (key, name) = (shown(key), quoted(&place.name));
    format!(
        "the key {key} is a candidate's of {whose}, in an election of the same name in another layout or spelling: to take part in \
         that election use {options} and --boundary {name}; if it is another election, add ?others=ignore or choose another name"
    )
}

pub fn describe_unread(place: &PeerElection) -> String {
    format!(
        "more than {KEYS_MAX} keys begin with {}, too many to find out whether a candidate of the same name in another layout is among \
         them: add ?others=ignore if none is, or choose another name",
        shown(place.election.as_bytes())
    )
}

pub fn describe_denied(place: &PeerElection) -> String {
    format!(
        "the user may not read {} and perhaps other keys of programs that use the same name in another layout: candidates there go \
         unnoticed; grant the right to read them, or add ?others=ignore if there are none",
        shown(place.election.as_bytes())
    )
}

/// The part of a candidate's key before its lease.
pub fn election_of(key: &[u8], lease: i64) -> &[u8] {
    key.strip_suffix(format!("{lease:x}").as_bytes()).filter(|_| lease != 0).unwrap_or(key)
}

/// A key that counts in our election and is no candidate's of it. Its election's keys begin with more than ours do, so that it does not
/// count ours.
pub fn describe_counted(whole: &[u8], lease: i64, election: &str) -> String {
    let (key, ours) = (shown(whole), shown(election.as_bytes()));
    if lease == 0 {
        let way = match shell_word(whole) {
            Some(word) if word.starts_with('-') => format!("etcdctl del -- {word}"),
            Some(word) => format!("etcdctl del {word}"),
            None => "by a program, since a shell does not take it".to_owned(),
        };
        return format!(
            "the key {key} has no lease, and stands in the way of all later candidates until it is deleted, because it begins with \
             {ours}: delete it ({way}), or choose a name that it does not begin with"
        );
    }
    format!(
        "the key {key} is of another election, and counts in this one, because it begins with {ours}: this election waits for its older \
         keys, and not the other way round; choose a name that no other one begins with"
    )
}

/// The whole key as one word of a shell: bytes that are no text, or that steer a terminal, in a form that bash, ksh and zsh know. `None`: an
/// argument cannot hold it, or a line of the log.
fn shell_word(key: &[u8]) -> Option<String> {
    if key.len() > WORD_BYTES_MAX || key.contains(&0) {
        return None;
    }
    if let Ok(text) = std::str::from_utf8(key)
        && !text.chars().any(is_unsafe)
    {
        return Some(quoted(text));
    }
    let bytes = key.iter().map(|&byte| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    Some(format!("$'{}'", bytes.collect::<String>()))
}

/// Where holster's programs have their keys, elect without a layout writes others.
pub fn prefix_warning(keys: &Keys) -> Option<String> {
    let is_holsters = keys.layout == Layout::Elect && keys.prefix.starts_with(HOLSTER_PREFIX);
    is_holsters.then(|| {
        format!(
            "{} is where holster's programs have their keys, and they write no slash before the lease: to take part in their \
             elections use --store 'etcd://…?layout=holster'",
            shown(keys.prefix.as_bytes())
        )
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn advice_names_the_election_as_its_programs_do_and_as_a_shell_takes_it() {
        let of = |program, name: &str, is_of_elect| {
            let place = PeerElection { name: name.to_owned(), election: format!("{name}/"), program };
            advice(&place, format!("{name}/1f").as_bytes(), is_of_elect)
        };
        let said = of(PeerKind::Concurrency, "/my-election/", false);
        assert!(said.contains("etcdctl or a Go program") && said.contains("--boundary /my-election/;"), "{said}");
        let said = of(PeerKind::Concurrency, "a b", false);
        assert!(said.contains("'etcd://…?layout=exact' and --boundary 'a b';"), "{said}");
        assert!(of(PeerKind::Concurrency, "mine", true).contains("an elect with other options"), "{said}");
        let said = of(PeerKind::Elect, "mine", false);
        assert!(said.contains("etcdctl or a Go program") && said.contains("no layout"), "{said}");
    }

    #[test]
    fn a_key_in_our_range_that_is_no_candidates_is_warned_of() {
        let nested = describe_counted(b"jobs/nightly/1f", 0x1f, "jobs/");
        assert!(nested.contains("jobs/nightly/1f") && nested.contains("not the other way round"), "{nested}");
        let plain = describe_counted(b"/app/db password", 0, "/app/");
        assert!(plain.contains("has no lease") && plain.contains("etcdctl del '/app/db password'"), "{plain}");
        assert_eq!(election_of(b"jobs/nightly/1f", 0x1f), b"jobs/nightly/");
        assert_eq!(election_of(b"jobs/0", 0), b"jobs/0");
    }

    #[test]
    fn a_key_to_delete_is_named_in_a_way_that_a_shell_takes() {
        let key_of = |key: &[u8]| {
            let said = describe_counted(key, 0, "/app/");
            let command = said
                .split_once("(etcdctl del ")
                .and_then(|(_, rest)| rest.split_once("), or choose"))
                .map(|(word, _)| word)?;
            // As bash passes it to a program.
            let words =
                Command::new("bash").args(["-c", &format!("printf %s {}", command.trim_start_matches("-- "))]).output();
            assert_eq!(command.starts_with("-- "), key.starts_with(b"-"), "{command}");
            Some(words.expect("bash is there").stdout)
        };
        let long = [b"/app/", [b'x'; 1500].as_slice()].concat();
        let keys = [
            b"/app/db password".as_slice(),
            b"/app/a'\xff\\\n$x",
            "/app/ä\u{202e}".as_bytes(),
            "/app/ä".as_bytes(),
            b"-v/x",
            &long,
        ];
        for key in keys {
            assert_eq!(key_of(key).as_deref(), Some(key), "{}", shown(key));
        }
        for key in [b"/app/\0".as_slice(), &[b'x'; 10_000]] {
            let said = describe_counted(key, 0, "/app/");
            assert!(said.contains("by a program") && said.len() < 1000, "{said}");
        }
    }

    #[test]
    fn the_prefix_of_holsters_programs_is_warned_of() {
        for (prefix, is_warned) in [("/elections/", true), ("/elections/team/", true), ("/elect/", false)] {
            assert_eq!(prefix_warning(&Keys::below(prefix.to_owned())).is_some(), is_warned, "{prefix}");
        }
    }
}
