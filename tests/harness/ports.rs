//! Ports that stay ours while nobody listens on them.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel takes the ports of outgoing connections: a server that is down for a while finds
/// its port free again, and nobody who tries to reach it meanwhile connects to himself.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port that is free on every address, each time another one. Another program may be quicker: try again then.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time start in different places.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).expect("below COUNT");
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|&port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
        .expect("one of so many ports is free")
}
