//! A real load balancer, which sends traffic to whoever says that it leads.

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Command, Stdio};

use super::{Sandbox, http_client, until};

#[derive(Debug)]
pub struct Haproxy {
    child: Child,
    pub port: u16,
}

impl Haproxy {
    /// In front of servers at these ports, each with the port at which its candidate is asked whether it leads.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, port: u16, servers: &[(u16, u16)]) -> Haproxy {
        let mut text = format!(
            "defaults\n mode http\n retries 0\n timeout connect 1s\n timeout client 5s\n timeout server 5s\n\
             frontend all\n bind 127.0.0.1:{port}\n default_backend leader\n\
             backend leader\n default-server inter 50ms fall 1 rise 1\n option httpchk GET /leader\n"
        );
        for (number, (serves, asked)) in servers.iter().enumerate() {
            let _ = writeln!(text, " server candidate-{number} 127.0.0.1:{serves} check port {asked}");
        }
        Haproxy::with(sandbox, port, &text)
    }

    /// With this configuration, which listens at this port.
    #[track_caller]
    pub fn with(sandbox: &Sandbox, port: u16, text: &str) -> Haproxy {
        let file = sandbox.path().join("haproxy.cfg");
        fs::write(&file, text).expect("written");
        let log = fs::File::create(sandbox.path().join("haproxy.log")).expect("created");
        let child = Command::new("haproxy")
            .args(["-db", "-q", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("cloned"))
            .stderr(log)
            .spawn()
            .expect("haproxy is there: tests/run installs it");
        let haproxy = Haproxy { child, port };
        until("haproxy answers", || http_client::get(port, "/").is_ok());
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
