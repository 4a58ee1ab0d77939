//! Numbers that tell terms, starts, requests and signals from each other.

/// The fencing token: strictly increasing from leader to leader of a boundary. Opaque, not consecutive.
pub type Term = u64;

/// The number of one start of the command, counted from the start of the candidate. A message of the keeper
/// about an earlier run must not be taken for one about the present run, "empty" above all.
pub type RunId = u64;

/// The number of one request to the store; a reply that carries another one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// The number of one control request; its answer carries the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The number of one health check, counted from the start of the candidate. A late result carries another number than the
/// outstanding check, and changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckNumber(pub u64);

/// A number for one leader and its known details; another number whenever any of them changes. The caller knows the
/// leader that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderKey(pub u64);

/// A signal by its number, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(pub i32);
