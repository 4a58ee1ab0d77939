//! The fields of a message, from bytes. Each function returns `None` if the bytes are not such a field.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use elect_core::{CommandEnd, HookContext, PROCESSES_NAMED_MAX, ProcessList, Program, Signal};

pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder(bytes)
    }

    /// Whether every byte has been decoded.
    pub fn is_finished(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub fn tag(&mut self) -> Option<u8> {
        self.take::<1>().map(|[tag]| tag)
    }

    pub fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    pub fn signed(&mut self) -> Option<i32> {
        self.take().map(i32::from_ne_bytes)
    }

    pub fn exited(&mut self) -> Option<CommandEnd> {
        Some(CommandEnd::Exited(u8::try_from(self.signed()?).ok()?))
    }

    pub fn killed(&mut self) -> Option<CommandEnd> {
        Some(CommandEnd::Killed { signal: Signal(self.signed()?), escalated: self.signed()? != 0 })
    }

    pub fn program(&mut self) -> Option<Program> {
        let (tag, term) = (self.tag()?, self.number()?);
        Some(match tag {
            1 => Program::Command { term },
            2 => Program::OnElected { term },
            3 => Program::OnOusted { term },
            4 => Program::Follower,
            _ => return None,
        })
    }

    pub fn hook_context(&mut self) -> Option<HookContext> {
        self.number().map(|run| if run == 0 { HookContext::Alone } else { HookContext::WithRun(run) })
    }

    pub fn processes(&mut self) -> Option<ProcessList> {
        let count = u32::try_from(self.number()?).ok()?;
        let mut processes = ProcessList::default();
        let named = usize::try_from(self.number()?).ok().filter(|named| *named <= PROCESSES_NAMED_MAX)?;
        for _ in 0..named {
            let (pid, name) = (self.signed()?, self.bytes()?.try_into().ok()?);
            processes.add(pid, || name);
        }
        processes.count = count;
        Some(processes)
    }

    /// Decodes the rest of the message.
    pub fn identity(&mut self) -> Option<Vec<(OsString, OsString)>> {
        let mut identity = Vec::new();
        while !self.0.is_empty() {
            let (name, value) = (self.bytes()?.to_vec(), self.bytes()?.to_vec());
            identity.push((OsString::from_vec(name), OsString::from_vec(value)));
        }
        Some(identity)
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}
