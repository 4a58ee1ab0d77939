//! Pages that a server shows on plain HTTP: its health, and its counters in Prometheus's text format.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The time in which a server that runs answers, on any machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// The page as it comes, head and all.
pub fn get(port: u16, path: &str) -> io::Result<String> {
    get_within(port, path, ANSWER_TIMEOUT)
}

/// The same, for a server that may be stopped: it accepts a connection and says nothing.
pub fn get_within(port: u16, path: &str, limit: Duration) -> io::Result<String> {
    let mut page = String::new();
    ask(port, path, limit)?.read_to_string(&mut page)?;
    Ok(page)
}

/// The same, for a page that comes in parts: `begin` is called when the first byte is there.
pub fn get_noting_begin(port: u16, path: &str, begin: impl FnOnce()) -> io::Result<String> {
    let mut stream = ask(port, path, ANSWER_TIMEOUT)?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    begin();
    let mut page = String::new();
    (&first[..]).chain(stream).read_to_string(&mut page)?;
    Ok(page)
}

fn ask(port: u16, path: &str, limit: Duration) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    // HTTP/1.0: the answer ends with the connection. One write, so that no second write waits until the first is confirmed.
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    Ok(stream)
}

/// The values of one counter, added up by the value of one label.
pub fn sums(page: &str, counter: &str, label: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in page.lines() {
        let Some((labels, value)) =
            line.strip_prefix(counter).and_then(|rest| rest.strip_prefix('{')?.split_once("} "))
        else {
            continue;
        };
        let named = format!("{label}=\"");
        let Some((_, rest)) = labels.split_once(&named) else { continue };
        let name = rest.split('"').next().unwrap_or_default().to_owned();
        *sums.entry(name).or_default() += value.parse::<u64>().expect("a counter of whole things");
    }
    sums
}
