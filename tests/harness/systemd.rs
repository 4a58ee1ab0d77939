//! A systemd of the test's own: PID 1 in namespaces, with a cgroup tree and a `/run` of its own and no units but the test's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::candidate::{Witness, elect};
use super::executables;
use super::processes::{self, MARK};
use super::{Sandbox, eventually, until};

/// The unit that `docs/recipes.md` shows.
pub fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/elect@.service")
}

/// A unit with the program where the test has it, in place of the package's.
#[track_caller]
pub fn local(unit: &str) -> String {
    assert!(unit.contains("ExecStart=/usr/bin/elect run "), "a unit needs the whole path: {unit}");
    unit.replace("/usr/bin/elect", "/usr/local/bin/elect")
}

/// Targets that units require; they are empty here.
const TARGETS: [&str; 5] = ["sysinit", "basic", "shutdown", "network-online", "multi-user"];

/// Mounts nothing that outlives it, and ends, everything in it too, when nobody holds its input open any longer.
const OUTSIDE: &str = r#"
set -eu
place=$1 name=$2
mount --make-rprivate /
mkdir "$place/cgroup"
mount -t cgroup2 none "$place/cgroup"
group=$place/cgroup/$name
mkdir "$group"
sh -c 'echo $$ >"$1/cgroup.procs"
       exec unshare --pid --fork --kill-child --cgroup --mount --mount-proc --uts --ipc --net -- sh -euc "$2" sh "$3"' \
  sh "$group" "$INSIDE" "$place" </dev/null &
read -r _ || :
kill -KILL $!
wait $! 2>/dev/null || :
# Its processes take a moment to be gone.
until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.01; done
"#;

/// The machine itself cannot be written to, but for the place of the test.
const INSIDE: &str = r#"
place=$1
umount "$place/cgroup"
mount --bind "$place" "$place"
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /run
mount --bind "$place/bin" /usr/local/bin
# The kernel refuses the same file system on the same mount point.
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
if [ -e /dev/console ]; then mount --bind "$place/console" /dev/console; fi
exec env -i container=elect "WITNESS_MARK=$WITNESS_MARK" "PATH=$PATH" "SYSTEMD_UNIT_PATH=$place/units" \
  /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=console
"#;

#[derive(Debug)]
pub struct Systemd<'a> {
    sandbox: &'a Sandbox,
    outside: Child,
    init: i32,
    log: PathBuf,
}

impl Systemd<'_> {
    /// With the unit of elect, to which `settings` are added, and `/usr/local/bin/cron` as the job.
    #[track_caller]
    pub fn boot<'a>(sandbox: &'a Sandbox, settings: &[&str], witness: &Witness) -> Systemd<'a> {
        let (units, programs) = (sandbox.path().join("units"), sandbox.path().join("bin"));
        fs::create_dir(&units).expect("created");
        fs::create_dir(&programs).expect("created");
        for target in TARGETS {
            fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=nothing\n").expect("written");
        }
        fs::write(units.join("elect@.service"), local(&fs::read_to_string(unit()).expect("the unit is there")))
            .expect("written");
        symlink(elect(), programs.join("elect")).expect("linked");
        let number = sandbox.next();
        let log = sandbox.log_of(number);
        let mark = format!("{}{number};", sandbox.mark());
        let drop_in = [
            "[Service]".to_owned(),
            format!("Environment={MARK}={mark} WITNESS_PLACE={}", sandbox.path().display()),
            format!("Environment=ELECT_STORE={}", sandbox.store()),
            format!("StandardOutput=append:{0}\nStandardError=append:{0}", log.display()),
        ];
        let drop_in: Vec<&str> = drop_in.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        fs::create_dir(units.join("elect@.service.d")).expect("created");
        fs::write(units.join("elect@.service.d/test.conf"), drop_in.join("\n") + "\n").expect("written");
        fs::write(sandbox.path().join("console"), "").expect("written");
        let job = witness.command().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let systemd = Systemd::start(sandbox, log, &mark);
        systemd.job(&format!("exec {}", job.join(" ")));
        systemd
    }

    #[track_caller]
    fn start<'a>(sandbox: &'a Sandbox, log: PathBuf, mark: &str) -> Systemd<'a> {
        let name = sandbox.path().file_name().expect("a directory has a name");
        let outside = Command::new("unshare")
            .args(["--mount", "sh", "-c", OUTSIDE, "sh"])
            .args([sandbox.path().as_os_str(), name])
            .env("INSIDE", INSIDE)
            .env(MARK, mark)
            .stdin(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let top = i32::try_from(outside.id()).expect("process ids are small");
        let init = eventually("systemd runs (this test needs root; in a container, --privileged)", || {
            let below = |pid: i32| processes::children(pid);
            let is_init = |pid: &i32| processes::name(*pid).as_deref() == Some("systemd");
            below(top).into_iter().flat_map(below).find(is_init)
        });
        let systemd = Systemd { sandbox, outside, init, log };
        until("systemd has booted", || systemd.control(&["is-system-running"]).is_ok());
        systemd
    }

    /// Sets the unit's command: a line of shell.
    pub fn job(&self, script: &str) {
        let path = self.sandbox.path().join("bin/cron");
        let new = path.with_extension("new");
        executables::script(&new, &format!("#!/bin/sh\n{script}\n"));
        fs::rename(new, path).expect("renamed");
    }

    /// `systemctl`.
    pub fn control(&self, words: &[&str]) -> Result<String, String> {
        let init = self.init.to_string();
        let enter = ["nsenter", "-t", &init, "-a", "--root", "--wd", "systemctl"];
        super::host_tools::attempt(enter.into_iter().chain(words.iter().copied()))
    }

    #[track_caller]
    pub fn does(&self, words: &[&str]) -> String {
        self.control(words).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// A property of the unit.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        self.does(&["show", "--value", "-p", name, "elect@cron"]).trim().to_owned()
    }

    #[track_caller]
    pub fn comes_to(&self, name: &str, value: &str) {
        until(&format!("{name} is {value}"), || self.property(name) == value);
    }

    /// The campaigner, as this machine numbers it.
    #[track_caller]
    pub fn campaigner(&self) -> i32 {
        eventually("the unit runs", || {
            let below = processes::children(self.init).into_iter();
            below.into_iter().find(|&pid| processes::name(pid).as_deref() == Some("elect"))
        })
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Systemd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = fs::read_to_string(self.sandbox.path().join("console")).unwrap_or_default();
            let lines: Vec<&str> = console.lines().collect();
            eprintln!("---- systemd:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        drop(self.outside.stdin.take());
        let _ = self.outside.wait();
    }
}
