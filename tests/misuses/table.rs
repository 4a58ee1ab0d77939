//! The rows: what is wrong, the line of shell that does it, its exit status, and the parts of the message.

use super::{Misuse, misuse};

/// Every row of this file.
pub fn all() -> impl Iterator<Item = &'static Misuse> {
    [COMMANDS, FLAGS, VARIABLES, STORES, DIRECTORIES, HOSTS, REQUESTS].into_iter().flatten()
}

pub const COMMANDS: &[Misuse] = &[
    misuse("no command", "run", 2, &["no command: say what to run", "-- ./job.sh"]),
    misuse(
        "a command that does not exist",
        "run -- no-such-job",
        127,
        &["no-such-job: command not found; no directory of PATH (", "write its whole path"],
    ),
    misuse(
        "a path that does not exist",
        "run -- /no/such/job",
        127,
        &["/no/such/job: command not found; there is no such file"],
    ),
    misuse(
        "a relative path in another working directory",
        "run -- ./job.sh",
        127,
        &["./job.sh: command not found; there is no such file in /"],
    ),
    misuse(
        "a file here without ./",
        "script job ''; run -- job",
        127,
        &["job: command not found; there is one here: write ./ before it"],
    ),
    misuse(
        "a line of shell as one word",
        "run -- 'sleep 1 && true'",
        127,
        &["command not found; it is taken as one word: give a line of shell to sh -c"],
    ),
    misuse(
        "a word of the shell",
        "run -- cd /tmp",
        127,
        &["cd: command not found; it is a word of the shell", "sh -c"],
    ),
    misuse(
        "an assignment before the command",
        "run -- PASSWORD=hunter2 true",
        127,
        &["PASSWORD=…: command not found; ", "write env NAME=VALUE COMMAND"],
    ),
    misuse(
        "a tilde in quotes",
        "run -- '~/job.sh'",
        127,
        &["~/job.sh: command not found; no shell has replaced", "leave out the quotes"],
    ),
    misuse("a variable that is empty", "run -- \"$NOTHING\"", 127, &["\"\": command not found; its name is empty"]),
    misuse(
        "a line that ends as on Windows",
        "run -- \"$(printf 'true\\r')\"",
        127,
        &["true\\r: command not found; it ends in a carriage return"],
    ),
    misuse(
        "a flag's value in two words",
        "run --ttl 10 s -- true",
        127,
        &["s: command not found; ", "is a flag's value in two words"],
    ),
    misuse(
        "a script for a shell that does not exist",
        "script job '#!/no/such/shell\\n'; run -- ./job",
        127,
        &["./job: its first line names the interpreter \"/no/such/shell\"", "install it"],
    ),
    misuse(
        "a script with line ends of Windows",
        "script job '#!/bin/sh\\r\\ntrue\\r\\n'; run -- ./job",
        127,
        &["the interpreter \"/bin/sh\\", "convert the script's line ends"],
    ),
    misuse(
        "a script that is not executable",
        "script job '#!/bin/sh\\n' 644; run -- ./job",
        126,
        &["./job: Permission denied", "chmod +x"],
    ),
    misuse("a directory as a command", "run -- /etc", 126, &["/etc: Is a directory", "name a program in it"]),
    misuse(
        "a program on a file system without programs",
        "mounted 'mount -t tmpfs -o noexec none .; cd \"$T\"; cp /bin/true job; exec elect run --quiet --store file:/run/none -b x -- ./job'",
        126,
        &["./job: Permission denied", "noexec"],
    ),
    misuse(
        "a program for another machine",
        "script job '\\177ELF\\002\\001\\001\\000\\000\\000\\000\\000\\000\\000\\000\\000\\002\\000\\267\\000\\001\\000\\000\\000'; run -- ./job",
        126,
        &["cannot be executed: Exec format error", "another kind of machine"],
    ),
    misuse(
        "a script of a user that may not be read",
        "script job '#!/bin/sh\\n' 700; urun -- ./job",
        126,
        &["./job: Permission denied", "another user's"],
    ),
];

pub const FLAGS: &[Misuse] = &[
    misuse("no boundary", "elect run -- true", 2, &["no boundary", "--boundary NAME before the command"]),
    misuse("the boundary after the command", "elect run true -b x", 2, &["no boundary", "before the command"]),
    misuse("an empty boundary", "elect run -b '' -- true", 2, &["boundary", "at least one character"]),
    misuse(
        "a boundary that is too long",
        "elect run -b $(printf %081d 0) -- true",
        2,
        &["boundary", "at most 80 bytes, and this one 81"],
    ),
    misuse(
        "a boundary that is not text",
        "elect run -b \"$(printf '\\377')\" -- true",
        2,
        &["the value of -b is not text: write it in UTF-8", "elect run --help"],
    ),
    misuse(
        "a flag that does not exist",
        "run --boundry x -- true",
        2,
        &["--boundry", "'--boundary'", "elect run --help"],
    ),
    misuse(
        "a long flag with one dash",
        "elect run -boundary x -- true",
        2,
        &["-boundary is a long flag with one dash: write --boundary"],
    ),
    misuse(
        "a flag without its value",
        "run --ttl",
        2,
        &["a value is required for '--ttl <DURATION>'", "elect run --help"],
    ),
    misuse("a flag twice", "run --ttl 5s --ttl 6s -- true", 2, &["'--ttl <DURATION>' cannot be used multiple times"]),
    misuse("a password as a flag", "run --password=hunter2 -- true", 2, &["--password", "--password-file"]),
    misuse("a duration that is none", "run --ttl soon -- true", 2, &["'soon'", "--ttl", "write it like 10s"]),
    misuse(
        "a negative duration",
        "run --ttl -5s -- true",
        2,
        &["-5s begins like a flag, and no flag takes a negative value"],
    ),
    misuse("a lease that is too short", "run --ttl 1s -- true", 2, &["--ttl 1s is too short", "it must be at least"]),
    misuse("a lease that is too long", "run --ttl 25h -- true", 2, &["--ttl", "longer than 24h", "give a shorter one"]),
    misuse(
        "renewals that are too rare",
        "run --renew 9s -- true",
        2,
        &["--renew 9s is too long for --ttl 10s", "at most 4s"],
    ),
    misuse(
        "a grace that is too long",
        "run --fence-grace 9s -- true",
        2,
        &["--fence-grace 9s is too long for --ttl 10s", "at most 4s"],
    ),
    misuse(
        "an attempt that is too long",
        "run --request-timeout 5s -- true",
        2,
        &["--request-timeout 5s is too long for --ttl 10s", "at most"],
    ),
    misuse(
        "two ways to wait",
        "run -n --wait 5s -- true",
        2,
        &["--no-wait and --wait exclude each other", "give one of them"],
    ),
    misuse(
        "a restart that does not exist",
        "run --restart sometimes -- true",
        2,
        &["'sometimes'", "never, on-failure, always"],
    ),
    misuse("a limit of restarts without a time", "run --restart-limit 5 -- true", 2, &["'5'", "as in 5/1m"]),
    misuse(
        "a signal that does not exist",
        "run --stop-signal SIGFOO -- true",
        2,
        &["'SIGFOO'", "--stop-signal", "like TERM or INT"],
    ),
    misuse(
        "a signal that stops nothing",
        "run --stop-signal STOP -- true",
        2,
        &["'STOP'", "freezes a process", "like TERM or INT"],
    ),
    misuse(
        "a follower's flag without a follower",
        "run --follower-on-change HUP -- true",
        2,
        &["--follower-on-change", "needs a --follower"],
    ),
    misuse(
        "a hook without any time",
        "run --on-elected true --hook-timeout 0 -- true",
        2,
        &["--hook-timeout must be longer than 0s"],
    ),
    misuse("an empty name", "run --name '' -- true", 2, &["--name is empty: give a name, or leave it out"]),
    misuse(
        "a name that steers the terminal",
        "run --name \"$(printf 'a\\033[2J')\" -- true",
        2,
        &["--name takes at most 256 bytes without control characters"],
    ),
    misuse(
        "a URL to be advertised",
        "run --advertise http://web-1:80 -- true",
        2,
        &["--advertise", "HOST or HOST:PORT alone"],
    ),
    misuse(
        "a port that does not exist",
        "run --advertise web-1:99999 -- true",
        2,
        &["'web-1:99999'", "--advertise", "HOST:PORT"],
    ),
    misuse(
        "a tier that does not exist",
        "run --containment docker -- true",
        2,
        &["'docker'", "auto, cgroup, pidns, tree"],
    ),
    misuse("a format that does not exist", "run --log-format xml -- true", 2, &["'xml'", "text, json"]),
    misuse("a port alone to listen at", "run --listen 8080 -- true", 2, &["'8080'", "with a colon: :8080"]),
    misuse("a URL to listen at", "run --listen http://:8080 -- true", 2, &["--listen", ":PORT, ADDRESS:PORT"]),
    misuse(
        "an address of another host to listen at",
        "run --listen 192.0.2.1:8080 -- true",
        125,
        &["--listen 192.0.2.1:8080: Cannot assign", "this host has no such address"],
    ),
    misuse(
        "a name to listen at that is not known",
        "run --listen no-such-host.invalid:8080 -- true",
        125,
        &["--listen no-such-host.invalid:8080: ", "or :PORT for all of them"],
    ),
    misuse(
        "a port that is taken",
        "python3 -c 'import socket, subprocess, sys\ns = socket.create_server((\"127.0.0.1\", 0))\nsys.exit(subprocess.call([\"elect\", \"run\", \"-s\", \"always:\", \"-b\", \"x\", \"--listen\", \"127.0.0.1:%d\" % s.getsockname()[1], \"--\", \"true\"]))'",
        125,
        &["--listen 127.0.0.1:", "Address already in use", "stop the program that listens there"],
    ),
    misuse("a command of another program", "elect lock x", 2, &["'lock'", "did you mean elect run"]),
    misuse(
        "a flag before the command's name",
        "elect -s always: run -b x -- true",
        2,
        &["-s", "a command comes first, as in elect run"],
    ),
    misuse("a shell without completions", "elect completions tcsh", 2, &["'tcsh'", "bash, zsh, fish"]),
    misuse(
        "a URL with a password as a command",
        "elect redis://:hunter2@db",
        2,
        &["redis://:…@db", "see elect --help"],
    ),
];

pub const VARIABLES: &[Misuse] = &[
    misuse(
        "a duration in a variable that is none",
        "ELECT_TTL=soon run -- true",
        2,
        &["'soon' for ELECT_TTL", "write it like 10s"],
    ),
    misuse(
        "a number in a variable that is none",
        "ELECT_VERBOSE=high run -- true",
        2,
        &["'high' for ELECT_VERBOSE: write a number"],
    ),
    misuse(
        "a switch that is neither on nor off",
        "ELECT_QUIET=maybe elect run -b x -- true",
        2,
        &["'maybe' for ELECT_QUIET: say 1 or 0"],
    ),
    misuse(
        "a misspelled variable",
        "ELECT_TLL=5s run -- true",
        0,
        &["ELECT_TLL is not read by elect: did you mean ELECT_TTL?"],
    ),
    misuse(
        "a misspelled store",
        "ELECT_STOR=redis://:hunter2@db run -- true",
        0,
        &["ELECT_STOR is not read by elect: did you mean ELECT_STORE?"],
    ),
    misuse(
        "an empty store",
        "ELECT_STORE= elect run -b x -- true",
        2,
        &["ELECT_STORE is empty", "etcd://", "leave it out"],
    ),
    misuse(
        "a variable that is not text",
        "ELECT_NAME=\"$(printf '\\377')\" run -- true",
        2,
        &["the value of ELECT_NAME is not text: write it in UTF-8"],
    ),
    misuse(
        "a password that is not text",
        "ELECT_PASSWORD=\"$(printf 'hunter2\\377')\" elect run -n -s redis://127.0.0.1:1 -b x -- true",
        2,
        &["ELECT_PASSWORD is not text: write it in UTF-8"],
    ),
    misuse(
        "a filter for spans that do not exist",
        "ELECT_LOG='[[[' run -- true",
        2,
        &["ELECT_LOG \"[[[\" is not a filter", "'[' has no meaning"],
    ),
    misuse(
        "a level that does not exist",
        "ELECT_LOG=elect=verbose run -- true",
        2,
        &["ELECT_LOG \"elect=verbose\" is not a filter like debug"],
    ),
    misuse(
        "a password for a store without a server",
        "ELECT_PASSWORD=hunter2 run -- true",
        2,
        &["ELECT_PASSWORD is for a store on a server", "--store"],
    ),
    misuse(
        "the boundary around, from the environment",
        "ELECT_ROLE=leader ELECT_BOUNDARY=y elect run -- true",
        2,
        &["no boundary: inside a command of elect's", "--boundary NAME"],
    ),
    misuse(
        "the boundary around, by name",
        "ELECT_ROLE=leader ELECT_BOUNDARY=x run -- true",
        2,
        &["inside the command of boundary x", "its own end"],
    ),
];

pub const STORES: &[Misuse] = &[
    misuse(
        "a path as a store",
        "elect run -s /var/lock -b x -- true",
        2,
        &["--store \"/var/lock\" names no kind of store: write it as file:DIR"],
    ),
    misuse(
        "a relative directory",
        "elect run -s file:locks -b x -- true",
        2,
        &["\"locks\" is a relative path", "write file:/"],
    ),
    misuse(
        "a directory on another host",
        "elect run -s file://nas/locks -b x -- true",
        2,
        &["it names another host", "file:///DIR"],
    ),
    misuse(
        "a word after always:",
        "elect run -s always:x -b x -- true",
        2,
        &["--store always:… is not understood: nothing follows the colon"],
    ),
    misuse(
        "a kind of store that does not exist",
        "elect run -s zookeeper://u:hunter2@db:2181 -b x -- true",
        2,
        &["--store zookeeper: is not a kind of store", "etcd://HOST:PORT"],
    ),
    misuse(
        "a file of a password that does not exist",
        "elect run -s redis://db -b x --password-file /no/such -- true",
        2,
        &["--password-file /no/such: No such file", "the path of a file that holds the password alone"],
    ),
    misuse(
        "the password instead of its file",
        "elect run -s redis://db -b x --password-file hunter2 -- true",
        2,
        &["--password-file", "No such file", "the path of a file that holds the password alone"],
    ),
    misuse(
        "an empty file of a password",
        ": >pw; elect run -s redis://db -b x --password-file $T/pw -- true",
        2,
        &["--password-file /", "is empty: it should hold the password alone"],
    ),
    misuse(
        "a directory as the file of a password",
        "elect run -s redis://db -b x --password-file $T -- true",
        2,
        &["--password-file /", "Is a directory", "the path of a file"],
    ),
    misuse(
        "a file of a password of another user",
        "printf hunter2 >pw; chmod 600 pw; user elect run -s redis://db -b x --password-file $T/pw -- true",
        77,
        &["--password-file /", "Permission denied", "let this user read it"],
    ),
    misuse(
        "a user without a password",
        "elect run -s redis://db -b x --username elect -- true",
        2,
        &["user \"elect\" has no password", "--password-file or ELECT_PASSWORD"],
    ),
];

pub const DIRECTORIES: &[Misuse] = &[
    misuse(
        "a directory below a file",
        "elect run -q -s file:/etc/passwd/locks -b x -- true",
        77,
        &["/etc/passwd/locks: cannot be created: Not a directory", "--store file:DIR names a directory"],
    ),
    misuse(
        "a file instead of a directory",
        "elect run -q -s file:/etc/passwd -b x -- true",
        77,
        &["/etc/passwd is not a directory: name another directory with --store file:DIR"],
    ),
    misuse(
        "a directory that may not be made",
        "mkdir sub; user elect run -q -s file:$T/sub/locks -b x -- true",
        77,
        &["/sub/locks: cannot be created: Permission denied", "--store file:DIR names another directory"],
    ),
    misuse(
        "a directory that may not be written",
        "mkdir locks; urun -- true",
        77,
        &["/locks/x.lock cannot be opened: Permission denied", "--store file:DIR names another directory"],
    ),
    misuse(
        "a directory that is read-only",
        "mkdir locks; mounted 'mount -t tmpfs -o ro none locks; exec elect run -q -s file:$T/locks -b x -- true'",
        77,
        &["/locks/x.lock cannot be opened: Read-only file system", "a writable file system"],
    ),
    misuse(
        "a directory that is full",
        "mkdir locks; mounted 'mount -t tmpfs -o size=16k none locks; head -c 1M /dev/zero >locks/f 2>/dev/null || :; exec elect run -qn --ttl 1m -s file:$T/locks -b x -- true'",
        69,
        &["/locks/x.lock cannot be written: No space left on device", "make room"],
    ),
    misuse(
        "a directory without inodes",
        "mkdir locks; mounted 'mount -t tmpfs -o nr_inodes=1 none locks; exec elect run -qn --ttl 1m -s file:$T/locks -b x -- true'",
        69,
        &["/locks/x.lock cannot be opened: No space left on device", "make room"],
    ),
    misuse(
        "a directory with the sticky bit",
        "mkdir -m 1777 locks; urun -- true",
        77,
        &["/locks has the sticky bit", "name another directory with --store file:DIR"],
    ),
    misuse(
        "a link to a directory that does not exist",
        "ln -s gone locks; run -n --ttl 1m -- true",
        69,
        &["/locks is a symbolic link to a directory that does not exist: make that directory"],
    ),
    misuse(
        "a directory instead of the lock file",
        "mkdir -p locks/x.lock; run -n --ttl 1m -- true",
        69,
        &["/locks/x.lock is a directory", "remove it"],
    ),
    misuse(
        "a lock file of another user",
        "mkdir -m 777 locks; : >locks/x.lock; chmod 600 locks/x.lock; urun -n --ttl 1m -- true",
        77,
        &["/locks/x.lock cannot be opened: Permission denied", "names another directory"],
    ),
    misuse(
        "the default directory is a file",
        "mounted 'mount -t tmpfs none /run; : >/run/elect; exec elect run -q -b x -- true'",
        77,
        &["/run/elect is not a directory: name another directory with --store file:DIR"],
    ),
    misuse(
        "the default directory is another user's",
        "mounted 'mount -t tmpfs none /run; mkdir /run/elect; chown 65534 /run/elect; exec elect run -q -b x -- true'",
        77,
        &["/run/elect belongs to uid 65534, not to us (uid 0): name another directory"],
    ),
    misuse(
        "the default directory is open to all",
        "mounted 'mount -t tmpfs none /run; mkdir -m 777 /run/elect; exec elect run -q -b x -- true'",
        77,
        &["/run/elect can be written by others (mode 777): name another directory"],
    ),
    misuse(
        "the default directory cannot be made",
        "mounted 'mount -t tmpfs -o ro none /run; exec elect run -q -b x -- true'",
        77,
        &["/run/elect: cannot be created: Read-only file system", "a writable file system"],
    ),
];

pub const HOSTS: &[Misuse] = &[
    misuse(
        "too few open files for the keeper",
        "ulimit -n 4; run -- true",
        125,
        &["the keeper could not be started: Too many open files", "ulimit -n"],
    ),
    misuse(
        "too few open files for a candidate",
        "ulimit -n 20; run -- true",
        125,
        &["more open files are needed", "ulimit -n"],
    ),
    misuse(
        "too few processes",
        "user prlimit --nproc=1 elect run --quiet --store file:$T/locks -b x -- true",
        125,
        &["the keeper could not be started: Resource temporarily unavailable", "ulimit -u"],
    ),
    misuse(
        "no /proc",
        "mounted 'umount -l /proc; exec elect run -q -s file:$T/locks -b x -- true'",
        125,
        &["/proc is not mounted"],
    ),
    misuse(
        "a PID namespace without root",
        "urun --containment pidns -- true",
        77,
        &[
            "--containment pidns is not available here",
            "it takes root (CAP_SYS_ADMIN), or leave it to --containment auto",
        ],
    ),
    misuse(
        "a privileged port without root",
        "urun --listen 127.0.0.1:80 -- true",
        125,
        &["--listen 127.0.0.1:80: Permission denied", "ports below 1024 need root"],
    ),
    misuse(
        "no store for a container",
        "unshare --pid --fork --mount-proc --kill-child elect run -b x -- true",
        2,
        &["as PID 1 the file store has to be named", "--store file:DIR"],
    ),
    misuse(
        "the records of another user",
        "mkdir -m 700 locks; user elect status -s file:$T/locks x",
        77,
        &["belongs to uid 0, ask as that user"],
    ),
];

pub const REQUESTS: &[Misuse] = &[
    misuse("a request without a boundary", "elect resign", 2, &["which boundary? name it with --boundary"]),
    misuse(
        "a request to nobody",
        "elect resign -b no-such-boundary",
        69,
        &["no candidate of this user campaigns for no-such-boundary on this host"],
    ),
    misuse(
        "a request to another candidate",
        "elect assert -b no-such-boundary --id 5",
        69,
        &["no candidate", "no-such-boundary", "as 5"],
    ),
    misuse("nothing to proclaim", "elect proclaim -b x", 2, &["proclaim what? give --name, --advertise or both"]),
    misuse("an empty name to proclaim", "elect proclaim -b x --name ''", 2, &["--name is empty"]),
    misuse(
        "a condition that does not exist",
        "elect wait -s file:$T/locks x --for leadr",
        2,
        &["'leadr'", "--for", "leader, none, name=NAME or id=ID"],
    ),
    misuse("a wait that ends", "elect wait -s file:$T/locks x --timeout 0.1", 75, &["boundary x", "within 100ms"]),
    misuse("two boundaries", "elect watch a b", 2, &["'b'", "elect watch --help"]),
];
