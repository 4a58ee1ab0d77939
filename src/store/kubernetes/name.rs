//! The name of the Lease of a boundary.
//!
//! A boundary that is a DNS subdomain, which is all that a Lease may be called, is the Lease's name as it is, so that other
//! programs find what they know. All other bytes are written as `-xHH`, as is everything that would be misread: `-` before `x`,
//! and dots and dashes where a subdomain has none. A name that would begin with such a group has an `x` before it, and an `x`
//! that would stand before a first group is itself written as one. So no two boundaries share a Lease, and a name can be read
//! back, unless it is so long that it has to be cut: then a hash tells it apart, behind `-xz`, which begins no group.

use std::fmt::Write as _;

use elect_core::boundary::Boundary;

/// Longest name of an object in Kubernetes, in bytes.
const NAME_BYTES_MAX: usize = 253;
/// The length to which a longer name is cut.
const KEPT_BYTES: usize = 200;
/// Between the two: no byte is written so, and so no name that was not cut has it.
const HASH_MARK: &str = "-xz";
/// Of the hash behind it.
const HASH_BYTES: usize = 16;

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// The name of the Lease.
pub fn lease_name(boundary: &Boundary) -> String {
    let bytes = boundary.as_str().as_bytes();
    let written: Vec<bool> = (0..bytes.len()).map(|at| stands_as_it_is(bytes, at)).collect();
    let mut name = String::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        let is_before_first_group = at == 0 && byte == b'x' && written.get(1) == Some(&false);
        if written.get(at) == Some(&true) && !is_before_first_group {
            name.push(char::from(byte));
            continue;
        }
        if at == 0 {
            name.push('x');
        }
        // Writing to a string cannot fail.
        let _ = write!(name, "-x{byte:02x}");
    }
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let kept = name.get(..KEPT_BYTES).unwrap_or_default().trim_end_matches(['.', '-']);
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut cut = format!("{kept}{HASH_MARK}");
    for byte in hash.as_ref().iter().take(HASH_BYTES) {
        let _ = write!(cut, "{byte:02x}");
    }
    cut
}

/// Whether this byte of a boundary is one of the name.
fn stands_as_it_is(bytes: &[u8], at: usize) -> bool {
    let byte_at = |at: usize| bytes.get(at).copied();
    let (before, after) = (at.checked_sub(1).and_then(byte_at), byte_at(at + 1));
    match bytes[at] {
        // A part of a subdomain begins and ends with a letter or a digit. A group ends with a digit and begins with a dash.
        b'.' => {
            let follows_plain = before.is_some_and(|byte| byte != b'.' && byte != b'-');
            follows_plain && after.is_some_and(is_plain)
        }
        b'-' => before.is_some() && after.is_some_and(|byte| byte != b'x'),
        byte => is_plain(byte),
    }
}

/// The boundary of a Lease, if it can be read from its name.
pub fn boundary_of(name: &str) -> Option<Boundary> {
    let bytes = name.as_bytes();
    let is_group = |at: usize| bytes.get(at..).is_some_and(|rest| rest.starts_with(b"-x"));
    let mut at = usize::from(bytes.first() == Some(&b'x') && is_group(1));
    let mut read = Vec::with_capacity(bytes.len());
    while let Some(&byte) = bytes.get(at) {
        if is_group(at) {
            let digits = name.get(at + 2..at + 4)?;
            read.push(u8::from_str_radix(digits, 16).ok()?);
            at += 4;
        } else {
            read.push(byte);
            at += 1;
        }
    }
    let boundary: Boundary = String::from_utf8(read).ok()?.parse().ok()?;
    (lease_name(&boundary) == name).then_some(boundary)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    /// Whether the API server accepts it as the name of a Lease.
    fn is_subdomain(name: &str) -> bool {
        let is_part = |part: &str| {
            let bytes = part.as_bytes();
            bytes.iter().all(|&byte| is_plain(byte) || byte == b'-')
                && bytes.first().copied().is_some_and(is_plain)
                && bytes.last().copied().is_some_and(is_plain)
        };
        name.len() <= NAME_BYTES_MAX && name.split('.').all(is_part)
    }

    fn name_of(boundary: &str) -> String {
        lease_name(&boundary.parse().expect("a boundary"))
    }

    #[test]
    fn a_subdomain_is_a_name_as_it_is_and_all_else_is_written_in_groups() {
        for (boundary, name) in [
            ("cron", "cron"),
            ("a.b-c.0", "a.b-c.0"),
            ("a--b", "a--b"),
            ("billing/nightly", "billing-x2fnightly"),
            ("Cron", "x-x43ron"),
            ("xA", "x-x78-x41"),
            ("x", "x"),
            ("a-x2f", "a-x2dx2f"),
            ("-a", "x-x2da"),
            ("a-", "a-x2d"),
            ("a.", "a-x2e"),
            (".a", "x-x2ea"),
            ("a..b", "a-x2e-x2eb"),
            ("a.-b", "a-x2e-b"),
            ("a-.b", "a--x2eb"),
            ("a./b", "a-x2e-x2fb"),
            ("a/.b", "a-x2f.b"),
        ] {
            assert_eq!(name_of(boundary), name, "{boundary}");
            assert!(is_subdomain(name), "{name}");
        }
    }

    /// `-xHH` is four bytes for one, and a boundary has eighty.
    #[test]
    fn a_name_that_is_too_long_is_cut_and_told_apart_by_a_hash() {
        let (one, other) = ("Ä".repeat(40), format!("{}Ö", "Ä".repeat(39)));
        let (one, other) = (name_of(&one), name_of(&other));
        assert_ne!(one, other);
        for name in [one, other] {
            assert!(is_subdomain(&name), "{name}");
            let (_, hash) = name.rsplit_once(HASH_MARK).expect("a hash");
            assert!(hash.len() == 2 * HASH_BYTES && name.len() <= KEPT_BYTES + 3 + 2 * HASH_BYTES, "{name}");
            assert_eq!(boundary_of(&name), None);
        }
    }

    /// A boundary that was made for it: what is kept of a long name, and the hash as if its first byte were a group.
    #[test]
    fn a_cut_name_is_that_of_no_shorter_boundary() {
        let mut tried = 0;
        for number in 0..2000 {
            let long = format!("{}---{}", "A".repeat(49), format!("{number:028}").replace('0', "B"));
            let name = name_of(&long);
            let hash = &name[name.len() - 2 * HASH_BYTES..];
            let byte = u8::from_str_radix(&hash[..2], 16).expect("hex");
            if byte.is_ascii_graphic() && !is_plain(byte) && byte != b'.' && byte != b'-' {
                tried += 1;
                let short = format!("{}{}{}", "A".repeat(49), char::from(byte), &hash[2..]);
                assert_ne!(name_of(&short), name, "{short} and {long}");
            }
        }
        assert!(tried > 100, "{tried}");
    }

    #[test]
    fn fifty_unusual_boundaries_have_fifty_valid_names() {
        let parts = ["", "x", "-", ".", "-x", "A", "/", "%", "ü", "x-"];
        let mut names = BTreeMap::new();
        for (one, other) in parts.iter().flat_map(|one| parts.iter().map(move |other| (one, other))) {
            let Ok(boundary) = format!("{one}{other}").parse::<Boundary>() else { continue };
            let name = lease_name(&boundary);
            assert!(is_subdomain(&name), "{boundary}: {name}");
            assert_eq!(boundary_of(&name).as_ref(), Some(&boundary), "{name}");
            if let Some(before) = names.insert(name.clone(), boundary.clone()) {
                assert_eq!(before, boundary, "{name}");
            }
        }
        assert!(names.len() >= 50, "{}", names.len());
    }

    #[test]
    fn any_boundary_has_a_valid_name_of_its_own() {
        let text = prop_oneof![proptest_support::text(), proptest_support::punctuation(), "[x.A/-]{1,80}"];
        proptest_support::check(proptest_support::FAST, &text, |text| {
            let Ok(boundary) = text.parse::<Boundary>() else { return };
            let name = lease_name(&boundary);
            assert!(is_subdomain(&name), "{boundary}: {name}");
            assert!(boundary_of(&name).is_none_or(|read| read == boundary), "{name}");
            assert!(name.len() > KEPT_BYTES || boundary_of(&name) == Some(boundary), "{name}");
        });
    }
}
