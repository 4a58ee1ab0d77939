//! `HOST:PORT`, in the one form in which flags, URLs and the control protocol take it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

#[cfg(feature = "network-store")]
use serde::{Deserialize, Serialize};

/// A host, and a port if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or a number, without brackets.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

/// Splits a text into the host, in brackets if they are there, and the port. More than one colon without brackets is an IPv6
/// address alone. `None`: the text after the colon is no port.
#[must_use]
pub fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && (!host.contains(':') || is_bracketed(host)) => {
            Some((host, Some(port.parse().ok()?)))
        }
        Some(_) | None => Some((text, None)),
    }
}

/// Whether a host is in brackets, as an IPv6 address before a port has to be.
#[must_use]
pub fn is_bracketed(host: &str) -> bool {
    host.starts_with('[') && host.ends_with(']')
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let form = || "write it as HOST or HOST:PORT, an IPv6 address in brackets: [::1]:8080".to_owned();
        if text.contains('/') {
            return Err("write HOST or HOST:PORT alone, without a scheme and a path".to_owned());
        }
        let (host, port) = split_port(text).ok_or_else(form)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let host = rest.strip_suffix(']').ok_or_else(form)?;
                // Any other text with a colon would be read as host and port the next time.
                host.split('%').next().unwrap_or_default().parse::<Ipv6Addr>().map_err(|_| form())?;
                host
            }
            None => host,
        };
        if host.is_empty() || host.chars().any(|c| c.is_control() || c.is_whitespace() || c == '[' || c == ']') {
            return Err(form());
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

/// As it is written on a command line.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(joined(&self.host, self.port).as_deref().unwrap_or(&self.host))
    }
}

/// Host and port as one text, IPv6 in brackets; `None` without a port.
#[must_use]
pub fn joined(host: &str, port: Option<u16>) -> Option<String> {
    let port = port?;
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// The address of a server: a host without brackets, and a port.
#[cfg(feature = "network-store")]
#[cfg_attr(not(feature = "all-stores"), allow(dead_code, reason = "some clients parse the addresses by themselves"))]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerAddress {
    /// A name or a number.
    pub host: String,
    /// The port.
    pub port: u16,
}

#[cfg(feature = "network-store")]
#[cfg_attr(not(feature = "all-stores"), allow(dead_code, reason = "some clients parse the addresses by themselves"))]
impl ServerAddress {
    /// Parses `host`, `host:port` or `[v6]:port`. `None`: the text is none of these.
    #[must_use]
    pub fn parse(text: &str, default_port: u16) -> Option<ServerAddress> {
        let (host, port) = split_port(text)?;
        let host = match url::Host::parse(host).ok()? {
            url::Host::Domain(name) => name,
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        Some(ServerAddress { host, port: port.unwrap_or(default_port) })
    }
}

#[cfg(feature = "network-store")]
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(joined(&self.host, Some(self.port)).as_deref().unwrap_or(&self.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        let address = |host: &str, port| Ok(HostPort { host: host.to_owned(), port });
        assert_eq!("db.example".parse(), address("db.example", None));
        assert_eq!("10.0.0.5:8080".parse(), address("10.0.0.5", Some(8080)));
        assert_eq!("[::1]:8080".parse(), address("::1", Some(8080)));
        assert_eq!("[::1]".parse(), address("::1", None));
        assert_eq!("fe80::1".parse(), address("fe80::1", None));
        for text in ["db.example", "10.0.0.5:8080", "[::1]:8080", "fe80::1"] {
            assert_eq!(text.parse::<HostPort>().expect(text).to_string(), text);
        }
        for text in
            ["", ":80", "host:", "host:http", "host:99999", "[::1", "[::1]8080", "a b", "a\n:1", "http://h:80", "h/x"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
        assert_eq!(joined("::1", Some(80)).as_deref(), Some("[::1]:80"));
        assert_eq!(joined("db", Some(80)).as_deref(), Some("db:80"));
        assert_eq!(joined("db", None), None);
    }
}
