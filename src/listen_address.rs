//! The address of `--listen`.

use std::fmt;
use std::str::FromStr;

/// An address to listen at, in the notation of the flag: `:8080`, `127.0.0.1:8080`, `[::1]:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress(String);

impl ListenAddress {
    /// The text that was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The port, if no host was given: then every interface is meant.
    #[must_use]
    pub fn port_alone(&self) -> Option<u16> {
        self.0.strip_prefix(':')?.parse().ok()
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let form = || "write it as :PORT, ADDRESS:PORT or [IPV6]:PORT, like 127.0.0.1:8080".to_owned();
        let port_without_colon = |port: u16| format!("a port alone is written with a colon: :{port}");
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| text.parse().map_or_else(|_| form(), port_without_colon))?;
        port.parse::<u16>().map_err(|_| form())?;
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !is_bracketed || host.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/')
        {
            return Err(form());
        }
        Ok(ListenAddress(text.to_owned()))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_perhaps_a_host() {
        for (text, port_alone) in
            [(":8080", Some(8080)), ("127.0.0.1:0", None), ("[::1]:8080", None), ("localhost:80", None)]
        {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!((address.as_str(), address.port_alone()), (text, port_alone));
        }
        for text in ["", "8080", "127.0.0.1", ":", ":http", ":65536", "::1:8080", "a b:80", "host:-1", "/x:1"] {
            let error = text.parse::<ListenAddress>().expect_err(text);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
