//! Tests of the harness: its servers and networks behave as their documentation says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::network::Network;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::stalled_disk::StalledDisk;
use crate::harness::until;
use crate::harness::wait::throughout;

/// Sends back what it is sent.
fn echo() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address").to_string();
    // Both threads end with the program.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("the proxy accepts");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of an open socket");
    stream
}

fn send(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("the proxy takes it");
}

/// Reads so many bytes.
fn receive(mut stream: &TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("it comes");
    String::from_utf8(bytes).expect("plain text")
}

#[test]
fn an_existing_connection_keeps_what_is_held_until_the_way_is_open() {
    let proxy = Proxy::to(&echo());
    let stream = connect(&proxy);
    send(&stream, "before");
    assert_eq!(receive(&stream, 6), "before");
    for mode in [ProxyMode::BlackHole, ProxyMode::RequestsHeld, ProxyMode::AnswersHeld] {
        let before = proxy.carried();
        proxy.mode(mode);
        send(&stream, "during");
        let answered = before.answers;
        throughout(Duration::from_millis(100), "nothing comes back", || proxy.carried().answers == answered);
        assert_eq!(proxy.carried().requests > before.requests, mode == ProxyMode::AnswersHeld, "{mode:?}");
        proxy.mode(ProxyMode::Open);
        assert_eq!(receive(&stream, 6), "during");
    }
    proxy.mode(ProxyMode::Closed);
    assert_eq!((&stream).read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    let refused = TcpStream::connect(proxy.address()).map_err(|error| error.kind());
    assert_eq!(refused.map(drop), Err(ErrorKind::ConnectionRefused));
    proxy.mode(ProxyMode::Open);
    let stream = connect(&proxy);
    send(&stream, "after");
    stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    let mut rest = String::new();
    (&stream).read_to_string(&mut rest).expect("it comes, and the end of it too");
    assert_eq!(rest, "after");
}

#[test]
fn a_proxy_has_room_for_two_hundred_connections_and_for_much_on_one() {
    let proxy = Proxy::to(&echo());
    let streams: Vec<TcpStream> = (0..200).map(|_| connect(&proxy)).collect();
    proxy.mode(ProxyMode::BlackHole);
    for stream in &streams {
        send(stream, "through");
    }
    proxy.mode(ProxyMode::Open);
    for stream in &streams {
        assert_eq!(receive(stream, 7), "through");
    }
    let much = "much".repeat(1 << 20);
    thread::scope(|scope| {
        scope.spawn(|| send(&streams[0], &much));
        assert_eq!(receive(&streams[0], much.len()), much);
    });
    assert_eq!(proxy.carried().connections, 200);
    let address = proxy.address();
    drop(proxy);
    until("all of them hear of its end", || (&streams[199]).read(&mut [0]).is_ok_and(|length| length == 0));
    TcpStream::connect(address).expect_err("nobody listens any more");
}

#[test]
fn a_server_that_is_not_there_resets_the_connection() {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port");
    let proxy = Proxy::to(&address.to_string());
    let stream = connect(&proxy);
    assert_eq!((&stream).read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_disk_stalls_nobody_else() {
    let disk = StalledDisk::new();
    let other = StalledDisk::new();
    std::fs::write(disk.path().join("file"), "before").expect("it takes a file");
    disk.freeze();
    std::fs::write(other.path().join("file"), "meanwhile").expect("it takes a file");
    assert_eq!(std::fs::read_to_string(disk.path().join("file")).expect("it can be read"), "before");
    let path = disk.path().join("file");
    let writer = thread::spawn(move || std::fs::write(path, "after"));
    throughout(Duration::from_millis(100), "the writer waits", || !writer.is_finished());
    disk.thaw();
    writer.join().expect("a thread that only writes").expect("it takes a file");
}

#[test]
fn a_cut_cable_holds_what_is_on_its_way_and_tells_nobody() {
    let network = Network::of(&["web-1"]);
    let listener = TcpListener::bind((network.address(), 0)).expect("an address of ours");
    let port = listener.local_addr().expect("a bound socket has an address").port().to_string();
    // Sends what it is sent on both ways.
    let script = r#"exec 3<>"/dev/tcp/$0/$1"; while read -r line <&3; do echo "$line" >&3; done"#;
    let words =
        [&network.host("web-1")[..], &["bash", "-c", script, &network.address(), &port].map(str::to_owned)].concat();
    let mut host = std::process::Command::new(&words[0]).args(&words[1..]).spawn().expect("bash is there");
    let (stream, _) = listener.accept().expect("it comes");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of an open socket");
    send(&stream, "before\n");
    assert_eq!(receive(&stream, 7), "before\n");
    for mode in [ProxyMode::BlackHole, ProxyMode::RequestsHeld, ProxyMode::AnswersHeld] {
        network.mode("web-1", mode);
        send(&stream, "during\n");
        stream.set_nonblocking(true).expect("a flag of an open socket");
        throughout(Duration::from_millis(100), "nothing comes", || {
            (&stream).read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        stream.set_nonblocking(false).expect("a flag of an open socket");
        network.mode("web-1", ProxyMode::Open);
        assert_eq!(receive(&stream, 7), "during\n");
    }
    drop(stream);
    until("it has heard of the end", || host.try_wait().expect("a child of ours").is_some());
}
