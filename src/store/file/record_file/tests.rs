//! Tests of the format of a record, and of how it is written.

use proptest::prelude::*;

use super::*;
use elect_core::limits::{TERM_MAX, TTL_MAX};
use elect_core::proptest_support;

fn files(directory: &Path) -> Files {
    Files::new(directory, directory.to_owned(), "cron")
}

fn valid() -> Value {
    let text = r#"{"version":2,"state":"held","id":"i","name":"n","host":"h","port":null,"term":7,"ttl":null,"since":1,
        "lock":{"device":1,"inode":2}}"#;
    serde_json::from_str(text).expect("JSON")
}

fn with(field: &str, value: Value) -> Result<FileRecord, ReadError> {
    let mut record = valid();
    record[field] = value;
    parse(record.to_string().as_bytes())
}

#[track_caller]
fn obstacle(read: Result<FileRecord, ReadError>) -> String {
    let Err(error) = read else { panic!("read: {read:?}") };
    let directory = tempfile::tempdir().expect("a directory");
    let error = error.into_store_error(&files(directory.path()));
    let StoreError::Obstacle(message) = error else { panic!("no obstacle: {error:?}") };
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.len() < 4 * MESSAGE_BYTES_MAX, "{}", message.len());
    message
}

#[test]
fn a_record_that_is_none_is_told_from_one_that_is_newer() {
    assert!(matches!(parse(b""), Err(ReadError::Corrupt(_))));
    assert!(matches!(parse(b"\0\0\0\0"), Err(ReadError::Corrupt(_))));
    assert!(matches!(parse(b"{\"version\":1}"), Err(ReadError::Corrupt(_))));
    assert!(matches!(parse(b"[3]"), Err(ReadError::Corrupt(_))));
    assert!(matches!(parse(b"{\"version\":-3}"), Err(ReadError::Corrupt(_))));
    for version in [3, u64::from(u32::MAX) + 7, u64::MAX] {
        let message = obstacle(with("version", version.into()));
        assert!(message.contains("newer elect") && message.contains("for n at h"), "{message}");
    }
    let message = obstacle(parse(br#"{"version":3,"whatever":[]}"#));
    assert!(message.contains("format 3") && message.contains("an unnamed candidate"), "{message}");
}

#[test]
fn a_record_of_the_first_version_is_read() {
    let record = with("version", 1.into()).expect("a record");
    assert_eq!((record.record.version, record.record.term), (1, 7));
}

#[test]
fn what_is_beyond_a_limit_is_cut_or_an_obstacle() {
    let long = "ä".repeat(3_000);
    for field in ["name", "host"] {
        let record = with(field, long.clone().into()).expect("a record").record;
        assert!(record.name.len() <= NAME_BYTES_MAX && record.host.len() <= NAME_BYTES_MAX);
    }
    assert_eq!(with("ttl", u64::MAX.into()).expect("a record").record.ttl, Some(24 * 60 * 60 * 1_000));
    assert_eq!(with("former", 5.into()).expect("a record").previous_term, Some(5));
    assert_eq!(with("former", u64::MAX.into()).expect("a record").previous_term, None);
    assert!(with("term", TERM_MAX.into()).is_ok());
    assert!(with("id", "i".repeat(64).into()).is_ok());
    assert!(obstacle(with("term", (TERM_MAX + 1).into())).contains("no larger one is believed"));
    assert!(obstacle(with("id", "i".repeat(65).into())).contains("id longer"));
    assert!(obstacle(with("scheme", "revision".into())).contains("another scheme (revision), held by n at h"));
    assert!(obstacle(with("scheme", 7.into())).contains("another scheme"));
    assert!(obstacle(with("unknown", "x".repeat(RECORD_BYTES_MAX).into())).contains("larger than"));
    let forged = obstacle(with("version", 9.into()).or_else(|_| {
        let mut record = valid();
        (record["version"], record["name"]) = (9.into(), "a\nelect: warning: \u{1b}[2J".into());
        parse(record.to_string().as_bytes())
    }));
    assert!(!forged.chars().any(crate::text::is_unsafe), "{forged}");
}

#[test]
fn fields_that_are_not_known_are_kept_as_long_as_there_is_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = files(directory.path());
    let mut record = with("successor", serde_json::json!({"id": "x", "within": [1]})).expect("a record");
    record.record.state = RecordState::Free;
    files.write(&record).expect("written");
    let kept = files.read().expect("read").expect("a record");
    assert_eq!(kept.unknown["successor"]["id"], "x");
    assert_eq!(kept, record);
    record.unknown.insert("long".to_owned(), "x".repeat(RECORD_BYTES_MAX).into());
    files.write(&record).expect("written");
    assert_eq!(files.read().expect("still readable").expect("a record").unknown, Map::new());
}

#[test]
fn a_reservation_counts_for_the_term_that_it_was_made_in_alone() {
    let mut record = with("state", "free".into()).expect("a record");
    let reservation = Reservation { successor: "web-2".to_owned(), within: Duration::from_secs(3) };
    record.reserve(Some(&reservation));
    assert_eq!(record.reservation(), Some(reservation));
    let left_over = FileRecord { record: Record { term: 8, ..record.record.clone() }, ..record.clone() };
    assert_eq!(left_over.reservation(), None);
    record.reserve(None);
    assert_eq!(record.reservation(), None);
    let malformed = with("successor", serde_json::json!({"candidate": 7, "within": -1})).expect("a record");
    assert_eq!(malformed.reservation(), None);
}

#[test]
fn a_record_is_marked_as_free_in_its_place_if_it_is_ours_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = files(directory.path());
    let mut held = with("name", "a long name".into()).expect("a record");
    let number = || fs::metadata(&files.record).expect("there").ino();
    let state = || files.read().expect("read").expect("a record").record.state;
    let frees = |in_place: bool, reservation: Option<&Reservation<String>>| {
        // A file system may give a number again at once.
        let before = fs::File::open(&files.record).expect("opened").metadata().expect("there").ino();
        let kept = fs::File::open(&files.record).expect("opened");
        files.free(&held, reservation).expect("written");
        assert_eq!((state(), number() == before), (RecordState::Free, in_place));
        drop(kept);
        files.write(&held).expect("written");
    };
    files.write(&held).expect("written");
    frees(true, None);
    frees(false, Some(&Reservation { successor: "web-2".to_owned(), within: Duration::from_secs(3) }));
    let other = directory.path().join("other");
    fs::hard_link(&files.record, &other).expect("a second name");
    frees(false, None);
    assert!(fs::read_to_string(&other).expect("there").contains("held"), "left alone");
    // A record that an editor has laid out in another way.
    fs::write(&files.record, serde_json::to_string_pretty(&held).expect("JSON")).expect("written");
    frees(false, None);
    held.record.state = RecordState::Free;
    files.write(&held).expect("written");
    let before = number();
    files.free(&held, None).expect("nothing to write");
    assert_eq!((state(), number()), (RecordState::Free, before));
}

#[test]
fn a_record_that_looks_damaged_is_read_once_more() {
    let damaged = || Err(ReadError::Corrupt("half of a word".to_owned()));
    let mut reads = [damaged(), Ok(1), Ok(2)].into_iter();
    assert_eq!(read_again_if_damaged(|| reads.next().expect("no third time")).expect("whole"), 1);
    let mut reads = [damaged(), damaged(), Ok(1)].into_iter();
    assert!(matches!(read_again_if_damaged(|| reads.next().expect("no third time")), Err(ReadError::Corrupt(_))));
    let mut reads = [Err(ReadError::NotRegular("a socket")), Ok(1)].into_iter();
    assert!(matches!(read_again_if_damaged(|| reads.next().expect("once")), Err(ReadError::NotRegular(_))));
}

fn records() -> impl Strategy<Value = FileRecord> {
    let state = prop_oneof![Just(RecordState::Held), Just(RecordState::Free)];
    let id = proptest::collection::vec(any::<char>(), 0..16).prop_map(String::from_iter);
    let who = (id, proptest_support::text(), proptest_support::text(), any::<Option<u16>>());
    let ttl = proptest::option::of(0..=86_400_000_u64);
    let previous_term = proptest::option::of(0..=TERM_MAX);
    let numbers = (0..=VERSION, 0..=TERM_MAX, ttl, any::<u64>());
    (state, who, numbers, any::<[u64; 2]>(), previous_term).prop_map(
        |(state, (id, name, host, port), (version, term, ttl, since), [device, inode], previous_term)| FileRecord {
            record: Record { version, state, id, name, host, port, term, ttl, since },
            lock: LockFile { device, inode },
            previous_term,
            unknown: Map::new(),
        },
    )
}

#[test]
fn what_is_written_is_what_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = files(directory.path());
    proptest_support::check(proptest_support::SLOW, &records(), |record| {
        files.write(&record).expect("written");
        assert_eq!(files.read().expect("a record"), Some(record));
    });
}

#[test]
fn whatever_is_found_in_a_record_is_read_without_harm_and_stays() {
    let json = || records().prop_map(|record| serde_json::to_vec(&record).expect("JSON"));
    let long = (proptest_support::text(), 0..40_000_usize).prop_map(|(text, count)| {
        let mut record = valid();
        record["name"] = (text + &"é".repeat(count)).into();
        record.to_string().into_bytes()
    });
    let deep = (0..16_000_usize).prop_map(|depth| {
        valid().to_string().replacen('{', &format!(r#"{{"deep":{},"#, "[".repeat(depth)), 1).into_bytes()
    });
    let numbers = (prop::sample::select(vec!["term", "ttl", "former", "since"]), any::<u64>());
    let numbers = numbers.prop_map(|(field, number)| {
        let mut record = valid();
        record[field] = number.into();
        record.to_string().into_bytes()
    });
    let found = prop_oneof![
        proptest_support::random_bytes(),
        proptest_support::corrupted(json()),
        proptest_support::wrong_types(json()),
        long,
        deep,
        numbers
    ];
    proptest_support::check(proptest_support::FAST, &found, |bytes| {
        if let Ok(record) = parse(&bytes) {
            let Record { id, name, host, term, ttl, .. } = &record.record;
            assert!(name.len() <= NAME_BYTES_MAX && host.len() <= NAME_BYTES_MAX && id.len() <= ID_BYTES_MAX);
            assert!(is_believed_term(*term) && record.previous_term.is_none_or(is_believed_term));
            assert!(ttl.is_none_or(|ttl| Duration::from_millis(ttl) <= TTL_MAX));
            let again = serde_json::to_vec(&record).expect("JSON");
            assert_eq!(parse(&again).expect("a record"), record);
        }
    });
    let directory = tempfile::tempdir().expect("a directory");
    let files = files(directory.path());
    proptest_support::check(proptest_support::SLOW, &found, |bytes| {
        fs::write(&files.record, &bytes).expect("written");
        if let Err(error) = files.read() {
            let message = error.into_store_error(&files).to_string();
            assert_eq!(message.lines().count(), 1);
            assert!(message.len() < 4 * MESSAGE_BYTES_MAX);
        }
        assert_eq!(fs::read(&files.record).expect("still there"), bytes);
    });
}

#[test]
fn noise_is_no_record() {
    proptest_support::check(proptest_support::FAST, &proptest_support::random_bytes(), |bytes| {
        assert!(parse(&bytes).is_err());
    });
}

#[test]
fn whatever_is_in_the_place_of_a_record_is_neither_followed_nor_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = files(directory.path());
    let private = directory.path().join("private");
    fs::write(&private, "private").expect("written");
    let clear = |path: &Path| {
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    };
    let makers: [fn(&Path, &Path); 5] = [
        |_, path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO"),
        |private, path| std::os::unix::fs::symlink(private, path).expect("a link"),
        |_, path| drop(std::os::unix::net::UnixListener::bind(path).expect("a socket")),
        |_, path| std::os::unix::fs::symlink("/dev/zero", path).expect("a link to a device"),
        |_, path| fs::create_dir(path).expect("a directory"),
    ];
    let record = parse(valid().to_string().as_bytes()).expect("a record");
    for make in makers {
        clear(&files.record);
        make(&private, &files.record);
        assert!(files.read().is_err());
        let is_directory = files.record.is_dir();
        assert_eq!(files.write(&record).is_err(), is_directory, "all but a directory is replaced");
        clear(&files.record);
        make(&private, &files.temporary);
        files.write(&record).expect("written under another name, if need be");
        assert_eq!(files.read().expect("a record"), Some(record.clone()));
        clear(&files.temporary);
        assert_eq!(fs::read(&private).expect("there"), b"private", "left alone");
    }
    // One record, the private file, and nothing temporary.
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 2);
}
