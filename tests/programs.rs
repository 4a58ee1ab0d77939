//! Real programs as commands: celery, gunicorn and nginx, each with work in flight when elect is asked to stop, to resign, or
//! loses its lease. tests/run installs them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::harness::ports::free_port;
use crate::harness::server::StoreServer;
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, eventually, http_client, until};
use crate::{ObservedServer, QueueServer};

/// More than the work in flight takes on any machine.
const STOP_TIMEOUT: &str = "60s";
/// What nginx serves.
const FILE_BYTES: usize = 1_500_000;

/// How a leadership ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// SIGTERM to elect.
    Terminated,
    /// `elect resign`.
    Resigned,
}

const CLEAN: [Ending; 2] = [Ending::Terminated, Ending::Resigned];

struct Site {
    sandbox: Sandbox,
    port: u16,
    boundary: &'static str,
}

impl Site {
    fn new(program: &str) -> Site {
        // The workers of nginx are another user's.
        let sandbox = Sandbox::new().open_to_all();
        for (name, text) in [
            ("tasks.py", include_str!("programs/tasks.py")),
            ("service.py", include_str!("programs/service.py")),
            ("nginx.conf", include_str!("programs/nginx.conf")),
        ] {
            fs::write(sandbox.path().join(name), text).expect("written");
        }
        // Control requests reach each candidate of this user on this host, those of other tests too.
        let boundary = format!("{program}-{}-{}", std::process::id(), sandbox.database());
        Site { sandbox, port: free_port(), boundary: Box::leak(boundary.into_boxed_str()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    /// elect with this command line, in its place.
    fn elect(&self, line: &str) -> ElectCmd {
        ElectCmd::new(&self.sandbox)
            .boundary(self.boundary)
            .variable("NOTES", &self.sandbox.path().display().to_string())
            .flag("--stop-timeout", STOP_TIMEOUT)
            .shell(&format!("cd '{}' && exec {line}", self.sandbox.path().display()))
    }

    fn count(&self, event: &str) -> usize {
        fs::read_to_string(self.path(event)).unwrap_or_default().lines().count()
    }

    fn resign(&self) -> Ended {
        ElectCmd::new(&self.sandbox).store(None).query("resign", &["-b", self.boundary]).run()
    }

    /// Ends the leadership in this way; nothing may be killed by elect.
    fn end(&self, mut candidate: CandidateProcess, ending: Ending) {
        match ending {
            Ending::Terminated => {
                candidate.signal(Signal::SIGTERM);
                candidate.wait();
            }
            Ending::Resigned => {
                let resigned = self.resign();
                assert_eq!(resigned.status.code(), Some(0), "{resigned:?}");
            }
        }
        let log = candidate.log();
        assert!(log.contains("leader command ended") && !log.contains("signal=\"KILL\""), "{log}");
        if let Ending::Resigned = ending {
            candidate.terminate();
        }
    }

    fn gunicorn(&self) -> ElectCmd {
        let line = "gunicorn --workers 2 --graceful-timeout 50 --timeout 50 --pid master.pid service:app";
        self.elect(&format!("{line} --bind 127.0.0.1:{}", self.port))
    }

    fn nginx(&self, daemon: &str) -> ElectCmd {
        let text = include_str!("programs/nginx.conf").replace("DIRECTORY", &self.sandbox.path().display().to_string());
        let text = text.replace("PORT", &self.port.to_string()).replace("DAEMON", daemon);
        fs::write(self.path("nginx.conf"), text).expect("written");
        fs::write(self.path("file"), "x".repeat(FILE_BYTES)).expect("written");
        self.elect("nginx -c \"$NOTES/nginx.conf\"")
    }

    /// A page that is being loaded.
    fn load(&self, path: &'static str) -> JoinHandle<String> {
        let port = self.port;
        until("the server answers", || http_client::get(port, "/service.py").is_ok());
        std::thread::spawn(move || http_client::get(port, path).expect("the whole answer"))
    }

    /// A file that is being loaded. It comes in parts, and most of them are still to come.
    fn download(&self) -> JoinHandle<String> {
        let port = self.port;
        until("the server answers", || http_client::get(port, "/service.py").is_ok());
        let (begins, begun) = mpsc::channel();
        let load = move || http_client::get_noting_begin(port, "/file", || begins.send(()).expect("it is waited for"));
        let download = std::thread::spawn(move || load().expect("the whole file"));
        begun.recv().expect("the download has begun");
        download
    }

    fn celery(&self, broker: &ObservedServer) -> ElectCmd {
        let line = "/usr/bin/python3 -m celery -A tasks worker --concurrency 2 --loglevel warning --without-gossip --without-mingle";
        self.elect(line).variable("BROKER", &broker.url())
    }

    /// Asks a worker to do a task that takes three seconds.
    fn order(&self, broker: &ObservedServer) {
        let call = "/usr/bin/python3 -m celery -A tasks call tasks.slow";
        let line = format!("cd '{}' && exec {call}", self.sandbox.path().display());
        let ordered =
            ElectCmd::new(&self.sandbox).program(["sh", "-c", line.as_str()]).variable("BROKER", &broker.url());
        let ordered = ordered.variable("NOTES", &self.sandbox.path().display().to_string()).run();
        assert!(ordered.status.success(), "{ordered:?}");
    }
}

#[test]
fn a_task_of_celery_is_done_before_its_worker_stops() {
    for ending in CLEAN {
        let site = Site::new("celery");
        let broker = ObservedServer::start();
        site.order(&broker);
        let worker = site.celery(&broker).start();
        until("the task has begun", || site.count("begun") == 1);
        site.end(worker, ending);
        assert_eq!((site.count("begun"), site.count("done")), (1, 1), "{ending:?}");
        site.sandbox.is_left_empty();
    }
}

#[test]
fn a_request_to_gunicorn_is_answered_before_it_stops() {
    for ending in CLEAN {
        let site = Site::new("gunicorn");
        let service = site.gunicorn().start();
        let request = site.load("/slow");
        until("the request has begun", || site.count("begun") == 1);
        site.end(service, ending);
        let answer = request.join().expect("answered");
        assert!(answer.contains("answered by"), "{ending:?}: {answer}");
        site.sandbox.is_left_empty();
    }
}

#[test]
fn a_download_from_nginx_is_complete_before_it_stops() {
    for ending in CLEAN {
        let site = Site::new("nginx");
        let server = site.nginx("off").flag("--stop-signal", "QUIT").start();
        let download = site.download();
        site.end(server, ending);
        let page = download.join().expect("a whole page");
        let (_, body) = page.split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!(body.len(), FILE_BYTES, "{ending:?}");
        site.sandbox.is_left_empty();
    }
}

#[test]
fn programs_with_work_in_flight_are_gone_when_the_lease_is_lost() {
    let broker = ObservedServer::start();
    let celery = Site::new("celery");
    celery.order(&broker);
    let (gunicorn, nginx) = (Site::new("gunicorn"), Site::new("nginx"));
    for (site, command) in
        [(&celery, celery.celery(&broker)), (&gunicorn, gunicorn.gunicorn()), (&nginx, nginx.nginx("off"))]
    {
        let store = QueueServer::start();
        // The grace is shorter than the work.
        let elect = command.store(store.url_for(&site.sandbox)).flag("--on-lost", "exit");
        let mut candidate = elect.start();
        let request = if site.boundary.starts_with("celery") {
            until("the task has begun", || site.count("begun") == 1);
            None
        } else {
            let port = site.port;
            until("the server answers", || http_client::get(port, "/service.py").is_ok());
            Some(std::thread::spawn(move || http_client::get(port, "/slow")))
        };
        store.stop();
        candidate.ends_with(76);
        site.sandbox.is_left_empty();
        let log = candidate.log();
        assert!(log.contains("the lease runs out"), "{log}");
        // Cut off or answered, but not waiting.
        let _ = request.map(|request| request.join().expect("no panic"));
        store.cont();
    }
}

#[test]
fn a_program_that_goes_into_the_background_is_reported_and_not_left_behind() {
    let site = Site::new("nginx");
    let ended = site.nginx("on").run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    // The processes come before the advice, which may name programs too.
    let named = |line: &&str| line.split_once("foreground").is_some_and(|(processes, _)| processes.contains("nginx"));
    assert_eq!(ended.stderr.lines().filter(named).count(), 1, "{ended:?}");
    assert!(http_client::get(site.port, "/file").is_err(), "it listens no more");
    site.sandbox.is_left_empty();
}

/// The master and its workers.
fn gunicorns(candidate: &CandidateProcess) -> Vec<i32> {
    let tree = candidate.tree();
    let mut pids: Vec<i32> =
        tree.iter().filter(|process| process.name == "gunicorn").map(|process| process.pid).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn without_a_terminal_gunicorn_gets_the_signals_that_it_knows() {
    let site = Site::new("gunicorn");
    // In a session of its own, which has no terminal.
    let candidate = site.gunicorn().wrapped_by(["setsid"]).start();
    until("the server answers", || http_client::get(site.port, "/").is_ok());
    let count = |workers: usize| until(&format!("{workers} workers"), || gunicorns(&candidate).len() == workers + 1);
    count(2);
    candidate.signal(Signal::SIGTTIN);
    count(3);
    candidate.signal(Signal::SIGTTOU);
    count(2);
    let before = gunicorns(&candidate);
    candidate.signal(Signal::SIGHUP);
    let reloaded = |after: &Vec<i32>| after.len() == 3 && after.iter().filter(|pid| before.contains(pid)).count() == 1;
    eventually("its workers are others", || Some(gunicorns(&candidate)).filter(reloaded));
    assert!(http_client::get(site.port, "/").is_ok(), "it serves");
    site.end(candidate, Ending::Terminated);
    site.sandbox.is_left_empty();
}

/// Asks a service for a page over and over while something happens. Returns the answers, each of which has to be whole.
fn asked_meanwhile(port: u16, act: impl FnOnce(&dyn Fn() -> usize)) -> Vec<String> {
    let (is_over, answers) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let answer = http_client::get(port, "/").expect("each request is answered");
                assert!(answer.contains(" by "), "{answer}");
                answers.lock().expect("nobody panics with it").push(answer);
            }
        });
        let count = || {
            assert!(!asking.is_finished(), "a request was lost");
            answers.lock().expect("nobody panics with it").len()
        };
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&count)));
        is_over.store(true, Ordering::SeqCst);
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    answers.into_inner().expect("nobody panics with it")
}

#[test]
fn a_reload_of_gunicorn_loses_no_request() {
    let site = Site::new("gunicorn");
    let service = site.gunicorn().wrapped_by(["setsid"]).start();
    until("both workers have loaded the service", || site.count("loaded") == 2);
    let request = site.load("/slow");
    until("the request has begun", || site.count("begun") == 1);
    let master = gunicorns(&service).into_iter().min().expect("a master");
    let renewed = include_str!("programs/service.py").replace("answered by", "renewed by");
    fs::write(site.path("service.py"), renewed).expect("written");
    let answers = asked_meanwhile(site.port, |count| {
        until("an old worker answers", || count() > 3);
        service.signal(Signal::SIGHUP);
        let is_new = || http_client::get(site.port, "/").is_ok_and(|answer| answer.contains("renewed by"));
        until("a new worker answers", is_new);
        let before = count();
        until("the new workers have answered", || count() > before + 3);
    });
    let of_new = answers.iter().filter(|answer| answer.contains("renewed by")).count();
    println!("figures: gunicorn: reloaded under elect, {} requests, {of_new} by new workers, none lost", answers.len());
    assert!((1..answers.len()).contains(&of_new), "old and new workers: {answers:?}");
    let answer = request.join().expect("answered");
    assert!(answer.contains("answered by"), "by the old worker: {answer}");
    assert_eq!(site.count("done"), 1, "the work in flight was finished");
    assert_eq!(gunicorns(&service).into_iter().min(), Some(master), "the main process is the same");
    let log = service.log();
    assert_eq!(log.matches("leader command started").count(), 1, "{log}");
    assert!(!log.contains("asked to stop"), "{log}");
    // Of the new workers' work nothing is lost either.
    let request = site.load("/slow");
    until("the request has begun", || site.count("begun") == 2);
    site.end(service, Ending::Terminated);
    let answer = request.join().expect("answered");
    assert!(answer.contains("renewed by"), "{answer}");
    site.sandbox.is_left_empty();
}

#[test]
fn a_reload_of_nginx_loses_no_download() {
    let site = Site::new("nginx");
    let server = site.nginx("off").flag("--stop-signal", "QUIT").wrapped_by(["setsid"]).start();
    let download = site.download();
    let text = fs::read_to_string(site.path("nginx.conf")).expect("it is there");
    let page = format!("location = /new {{ return 200 'renewed by nginx'; }} root {}", site.sandbox.path().display());
    fs::write(site.path("nginx.conf"), text.replacen("root ", &format!("{page}; #"), 1)).expect("written");
    server.signal(Signal::SIGHUP);
    until("the new configuration is served", || {
        http_client::get(site.port, "/new").is_ok_and(|answer| answer.contains("renewed by"))
    });
    let page = download.join().expect("a whole page");
    let (_, body) = page.split_once("\r\n\r\n").expect("a head and a body");
    assert_eq!(body.len(), FILE_BYTES);
    site.end(server, Ending::Terminated);
    site.sandbox.is_left_empty();
}
