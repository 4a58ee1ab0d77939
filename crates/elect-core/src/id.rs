//! Numbers that tell terms, starts, requests and signals from each other.

/// The fencing token: strictly increasing from leader to leader of a boundary. Opaque, not consecutive.
pub type Term = u64;

/// The number of one start of the command, counted over the whole life of the candidate. What the keeper says of an
/// earlier run must not be taken for the present one: "empty" above all.
pub type RunId = u64;

/// The number of one request to the store; a reply that carries another one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// The number of one wish that somebody on this host has; its answer carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One leader and what is known of it, as a number: another whenever any of it changes. Whoever calls knows what it
/// stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderKey(pub u64);

/// A signal by its number, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(pub i32);
