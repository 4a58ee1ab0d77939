//! The fields of a message, as bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use elect_core::{HookContext, NamedProcess, ProcessList, Program};

#[derive(Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    pub fn tag(&mut self, tag: u8) -> &mut Encoder {
        self.0.push(tag);
        self
    }

    pub fn number(&mut self, number: u64) -> &mut Encoder {
        self.0.extend(number.to_ne_bytes());
        self
    }

    pub fn signed(&mut self, number: i32) -> &mut Encoder {
        self.0.extend(number.to_ne_bytes());
        self
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Encoder {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    pub fn program(&mut self, program: Program) -> &mut Encoder {
        match program {
            Program::Command { term } => self.tag(1).number(term),
            Program::OnElected { term } => self.tag(2).number(term),
            Program::OnOusted { term } => self.tag(3).number(term),
            Program::Follower => self.tag(4).number(0),
        }
    }

    /// Encodes a missing run as zero: runs are counted from one.
    pub fn hook_context(&mut self, context: HookContext) -> &mut Encoder {
        match context {
            HookContext::WithRun(run) => self.number(run),
            HookContext::Alone => self.number(0),
        }
    }

    /// Fewer may be named than the number of all would allow: a process may have become a zombie, or may be a later one.
    pub fn processes(&mut self, processes: &ProcessList) -> &mut Encoder {
        self.number(u64::from(processes.count)).number(processes.named().count() as u64);
        for NamedProcess { pid, name } in processes.named() {
            self.signed(*pid).bytes(name);
        }
        self
    }

    /// The identity is the last field of a message.
    pub fn identity(&mut self, identity: &[(OsString, OsString)]) -> &mut Encoder {
        for (name, value) in identity {
            self.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        self
    }

    /// Takes the encoded message.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}
