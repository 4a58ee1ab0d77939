//! The static program, alone in an empty root: it needs /proc, and the address of a name server where a store has a name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::harness::empty_root::{self, EmptyRoot, program};
use crate::harness::store_fixtures::start_all;
use crate::harness::{Sandbox, host_tools};

/// A name server that knows one address for every name. It ends with the tests.
fn name_server() -> IpAddr {
    // Of this test alone; the port is the one that every resolver asks.
    let address = Ipv4Addr::new(127, 77, 53, 1);
    let socket = UdpSocket::bind(SocketAddr::new(address.into(), 53)).expect("root may bind it");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer_of(&question[..length]) {
                let _ = socket.send_to(&answer, asker);
            }
        }
    });
    address.into()
}

/// By RFC 1035: the header with the same id, the question, and for an A question one record.
fn answer_of(question: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = question.get(HEADER..)?.iter().position(|&byte| byte == 0)?;
    let end = HEADER + name + 1 + 4;
    let asks_for_a = question.get(end - 4..end)? == [0, 1, 0, 1];
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(asks_for_a), 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    if asks_for_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

#[test]
fn the_static_program_needs_nothing_else_on_any_store() {
    if !empty_root::is_possible() {
        return;
    }
    let program = program();
    let said = host_tools::attempt(["ldd", program.to_str().expect("plain text")]);
    let is_static =
        said.as_ref().map_or_else(|error| error.contains("not a dynamic"), |said| said.contains("statically"));
    assert!(is_static, "{said:?}");
    let server = name_server();
    EmptyRoot::new(server).leads(&["--store", "file:/locks"]);
    for store in start_all().iter().filter(|store| store.has_server()) {
        let (root, sandbox) = (EmptyRoot::new(server), Sandbox::new());
        root.leads(&["--store", &store.url(&sandbox)]);
        let address = store.address();
        let (_, port) = address.rsplit_once(':').expect("a port");
        root.leads(&["--store", &store.url_through(&format!("store.example:{port}"), &sandbox)]);
        println!("{}: by address and by name", store.name());
    }
}
