//! The conformance suite on a real etcd.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clock;
use crate::store::Access;
use crate::store::conformance::{Site, conforms};

/// One member, gone with the handle.
struct Server {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let data = tempfile::tempdir().expect("a temporary directory");
        let [client, peer] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed: tests/run installs it");
        let server = Server { child, address: client, _data: data };
        let limit = clock::now() + Duration::from_secs(30);
        while TcpStream::connect(&server.address).is_err() {
            assert!(clock::now() < limit, "etcd does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

#[test]
fn it_conforms() {
    let server = Server::start();
    let access = Access { request_timeout: Duration::from_secs(5), ..Access::default() };
    conforms(&Site { url: format!("etcd://{}", server.address), access, ttl: Duration::from_secs(10) });
}
