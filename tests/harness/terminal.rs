//! A terminal with a shell in it, as a person has it.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::processes::{self, MARK, ProcessInfo};
use super::{ElectCmd, Sandbox, eventually, until};

#[derive(Debug)]
pub struct PseudoTerminal {
    script: Child,
    keyboard: Option<ChildStdin>,
    screen: PathBuf,
    mark: String,
}

impl PseudoTerminal {
    /// `script` makes the terminal, bash takes the job control.
    pub fn open(sandbox: &Sandbox) -> PseudoTerminal {
        let terminal = PseudoTerminal::with(sandbox, "bash --norc --noprofile -i");
        terminal.shows("bash-");
        terminal
    }

    /// Without job control: a script, whose commands are all one job, and which is itself the leader of the session.
    pub fn script(sandbox: &Sandbox, text: &str) -> PseudoTerminal {
        let file = sandbox.path().join("script.sh");
        fs::write(&file, text).expect("the place takes a script");
        PseudoTerminal::with(sandbox, &format!("sh {}", file.display()))
    }

    fn with(sandbox: &Sandbox, shell: &str) -> PseudoTerminal {
        let number = sandbox.next();
        let screen = sandbox.log_of(number);
        let mark = format!("{}{number};", sandbox.mark());
        let file = File::create(&screen).expect("the place takes a log");
        let mut script = Command::new("script")
            .args(["--quiet", "--flush", "--command", &format!("exec {shell}"), "/dev/null"])
            // `script` runs it with this shell, whatever the machine's owner prefers.
            .env("SHELL", "/bin/sh")
            .env(MARK, &mark)
            .env("WITNESS_PLACE", sandbox.path())
            .env("TERM", "dumb")
            .env_remove("PROMPT_COMMAND")
            .stdin(Stdio::piped())
            .stdout(file.try_clone().expect("one more descriptor"))
            .stderr(file)
            .spawn()
            .expect("script is there");
        let keyboard = script.stdin.take();
        PseudoTerminal { script, keyboard, screen, mark }
    }

    /// The shell, which leads the session.
    #[track_caller]
    pub fn shell(&self) -> i32 {
        let script = i32::try_from(self.script.id()).expect("process ids are small");
        eventually("a shell in the terminal", || processes::children(script).first().copied())
    }

    /// The process group in the foreground, as the kernel knows it; zero without any.
    #[track_caller]
    pub fn foreground(&self) -> i32 {
        processes::stat(self.shell(), 5).expect("the shell is there")
    }

    #[track_caller]
    pub fn is_given_to(&self, group: i32) {
        until(&format!("group {group} has the terminal"), || self.foreground() == group);
    }

    #[track_caller]
    pub fn is_back_with_the_shell(&self) {
        self.is_given_to(self.shell());
    }

    /// A process that was started here.
    #[track_caller]
    pub fn process(&self, name: &str) -> i32 {
        eventually(&format!("{name} runs in the terminal"), || {
            self.jobs().into_iter().find(|process| process.name == name).map(|process| process.pid)
        })
    }

    pub fn types(&mut self, text: &str) {
        let keyboard = self.keyboard.as_mut().expect("an open terminal");
        keyboard.write_all(text.as_bytes()).expect("the terminal takes what is typed");
        keyboard.flush().expect("the terminal takes what is typed");
    }

    /// A key with Ctrl held down.
    pub fn presses_control(&mut self, key: char) {
        let code = u8::try_from(key).expect("a plain key") & 0x1f;
        self.types(&char::from(code).to_string());
    }

    /// Types a command line of elect's.
    pub fn runs(&mut self, elect: &ElectCmd, after: &str) {
        self.types(&format!("{}{after}\n", typed(elect)));
    }

    #[track_caller]
    pub fn shows(&self, text: &str) {
        until(&format!("{text:?} on the screen"), || self.screen().contains(text));
    }

    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.screen).expect("the screen is there")).into_owned()
    }

    /// The processes in it, without the shell and the terminal themselves.
    pub fn jobs(&self) -> Vec<ProcessInfo> {
        let own = |process: &ProcessInfo| matches!(process.name.as_str(), "script" | "bash");
        processes::marked(&self.mark).into_iter().filter(|process| !own(process)).collect()
    }

    /// The campaigner that was started here.
    #[track_caller]
    pub fn elect(&self) -> i32 {
        self.process("elect")
    }

    /// As when its window is closed.
    pub fn close(&mut self) {
        self.keyboard = None;
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// A command line of elect's, as a shell reads it.
pub fn typed(elect: &ElectCmd) -> String {
    let quoted = |word: &std::ffi::OsString| {
        let word = word.to_str().expect("plain text");
        format!("'{}'", word.replace('\'', r"'\''"))
    };
    elect.words().iter().map(quoted).collect::<Vec<_>>().join(" ")
}

impl Drop for PseudoTerminal {
    fn drop(&mut self) {
        self.close();
        processes::kill_marked(&self.mark);
    }
}
