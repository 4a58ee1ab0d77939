//! Naming processes for the log, from `/proc/PID/stat`. Nothing here allocates (K3).

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::tree::{Path, Scanner};
use elect_core::ProcessList;

/// The processes whose state is read; further ones are taken to live.
const STATES_READ_MAX: usize = 256;

/// The list of those of these processes that have not ended.
pub fn living(pids: &mut dyn Iterator<Item = i32>) -> ProcessList {
    let mut list = ProcessList::default();
    for (place, pid) in pids.enumerate() {
        if place >= STATES_READ_MAX {
            list.add(pid, || [0; 16]);
        } else if let Some(Stat { name, has_ended: false, .. }) = Stat::of(pid) {
            list.add(pid, || name);
        }
    }
    list
}

/// Whether no descendant of `root` lives but its child `last`, which has got SIGKILL. What `last` cannot reap any more
/// is a zombie below it. `false` if that cannot be found out.
pub fn is_last_descendant(scanner: &mut Scanner, root: i32, last: i32) -> bool {
    if scanner.children_of(root) != Some(&[last]) {
        return false;
    }
    let others_have_ended = scanner
        .all_descendants(root, &[])
        .is_some_and(|found| found.iter().all(|&pid| pid == last || Stat::of(pid).is_some_and(|stat| stat.is_over())));
    // A process that was forked during the walk, by one that has ended since, is a child of the root by now; and if
    // `last` had ended, its children would be.
    others_have_ended && scanner.children_of(root) == Some(&[last])
}

/// The part of `/proc/PID/stat` that is needed: `12 (name) S …`.
struct Stat {
    name: [u8; 16],
    has_ended: bool,
    threads: u32,
}

impl Stat {
    /// Whether no thread is left of it. The first thread of a process may end before others.
    fn is_over(&self) -> bool {
        self.has_ended && self.threads <= 1
    }

    /// `None`: the process does not exist any more, or no descriptor is left.
    fn of(pid: i32) -> Option<Stat> {
        let path = Path::of(format_args!("/proc/{pid}/stat"));
        let file = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut text = [0; 512];
        let length = nix::unistd::read(&file, &mut text).ok()?;
        Stat::parse(&text[..length])
    }

    /// A name may contain any character, parentheses too: it ends at the last one.
    fn parse(text: &[u8]) -> Option<Stat> {
        let begin = text.iter().position(|byte| *byte == b'(')? + 1;
        let end = text.iter().rposition(|byte| *byte == b')').filter(|end| *end >= begin)?;
        let mut name = [0; 16];
        for (place, byte) in name.iter_mut().zip(&text[begin..end]) {
            *place = *byte;
        }
        let has_ended = matches!(text.get(end + 2), Some(b'Z' | b'X'));
        // The fields after the name are counted from 3; the 20th is the number of threads.
        let threads = text.get(end + 2..)?.split(|byte| *byte == b' ').nth(17);
        let threads = threads.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok()).unwrap_or(u32::MAX);
        Some(Stat { name, has_ended, threads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, bool)> {
        let Stat { name, has_ended, .. } = Stat::parse(text.as_bytes())?;
        Some((String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned(), has_ended))
    }

    #[test]
    fn a_name_ends_at_the_last_parenthesis() {
        assert_eq!(parsed("12 (nginx) S 1 12"), Some(("nginx".to_owned(), false)));
        assert_eq!(parsed("12 (a) b (c)) Z 1 12"), Some(("a) b (c)".to_owned(), true)));
        assert_eq!(parsed("12 (a-name-of-15-ch) R 1"), Some(("a-name-of-15-ch".to_owned(), false)));
        assert_eq!(parsed("nothing"), None);
    }

    #[test]
    fn this_process_lives_and_has_a_name() {
        let own = std::process::id().cast_signed();
        let list = living(&mut [own, i32::MAX].into_iter());
        assert_eq!(list.count, 1, "the other does not exist");
        assert!(list.named().all(|process| process.pid == own && process.name[0] != 0));
    }
}
