//! The address of `--listen`.

use std::str::FromStr;

use crate::host_port::{is_bracketed, split_port};

/// Where to listen, as people write it: `:8080`, `127.0.0.1:8080`, `[::1]:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress(String);

impl ListenAddress {
    /// The address as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let form = || "write it as :PORT, ADDRESS:PORT or [IPV6]:PORT, like 127.0.0.1:8080".to_owned();
        let (host, port) = split_port(text).ok_or_else(form)?;
        let is_address = is_bracketed(host) || !host.contains(':');
        if port.is_none() || !is_address || host.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(form());
        }
        Ok(ListenAddress(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_perhaps_a_host() {
        for text in [":8080", "127.0.0.1:0", "[::1]:8080", "localhost:80"] {
            assert_eq!(text.parse(), Ok(ListenAddress(text.to_owned())));
        }
        for text in ["", "8080", "127.0.0.1", ":", ":http", ":65536", "::1:8080", "a b:80", "host:-1"] {
            let error = text.parse::<ListenAddress>().expect_err(text);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
