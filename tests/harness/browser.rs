//! A real browser without a window: Chromium, driven over its own protocol through a pair of pipes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::{Sandbox, eventually};

/// Programs that are Chromium, the smallest first.
const PROGRAMS: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

/// A browser; it ends with this handle.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    last_id: u64,
    events: Vec<Value>,
}

/// A tab of it.
#[derive(Debug)]
pub struct Tab<'a> {
    browser: &'a mut Browser,
    session: String,
}

impl Browser {
    #[track_caller]
    pub fn start(sandbox: &Sandbox) -> Browser {
        let is_there = |program: &&&str| {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&paths).any(|folder| folder.join(program).exists())
        };
        let program = PROGRAMS.iter().find(is_there).expect("Chromium is there: tests/run installs it");
        let log = fs::File::create(sandbox.path().join("browser.log")).expect("created");
        // It reads orders at descriptor 3 and answers at 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh", program])
            .args(["--remote-debugging-pipe", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
            .arg(format!("--user-data-dir={}", sandbox.path().join("browser").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let (orders, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Browser { child, orders, answers: BufReader::new(answers), last_id: 0, events: Vec::new() }
    }

    #[track_caller]
    fn receive(&mut self) -> Value {
        let mut message = Vec::new();
        self.answers.read_until(0, &mut message).expect("the browser answers");
        message.pop();
        serde_json::from_slice(&message).unwrap_or_else(|error| panic!("the browser has ended: {error}"))
    }

    /// Gives an order and waits for its answer. Events that come meanwhile are kept.
    #[track_caller]
    fn call(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut order = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = session {
            order["sessionId"] = session.into();
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).expect("the browser takes orders");
        loop {
            let message = self.receive();
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// A new tab with a window of this width, of which every request is noted. Without scripts, elements of
    /// `<noscript>` count.
    #[track_caller]
    pub fn open(&mut self, url: &str, width: u32, has_scripts: bool) -> Tab<'_> {
        self.events.clear();
        let target = self.call(None, "Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let attached = self.call(None, "Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let mut tab = Tab { browser: self, session };
        for domain in ["Page", "Network", "Log", "Runtime"] {
            tab.call(&format!("{domain}.enable"), &json!({}));
        }
        let window = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        tab.call("Emulation.setDeviceMetricsOverride", &window);
        tab.call("Emulation.setScriptExecutionDisabled", &json!({"value": !has_scripts}));
        tab.call("Page.navigate", &json!({"url": url}));
        while !tab.browser.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = tab.browser.receive();
            tab.browser.events.push(event);
        }
        tab
    }
}

impl Tab<'_> {
    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.browser.call(Some(&self.session), method, params)
    }

    /// The value of an expression in the tab.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// The text of the element with this id, as it is shown.
    #[track_caller]
    pub fn text(&mut self, id: &str) -> String {
        let text = self.value(&format!("document.getElementById({id:?}).textContent"));
        text.as_str().expect("a text").to_owned()
    }

    /// Waits until the element with this id shows these words.
    #[track_caller]
    pub fn shows(&mut self, id: &str, words: &str) {
        eventually(&format!("{words:?} in {id}"), || self.text(id).contains(words).then_some(()));
    }

    /// The origin of each request so far, and each complaint of the browser: of its policy, of a script.
    #[track_caller]
    pub fn requests_and_complaints(&mut self) -> (Vec<String>, Vec<Value>) {
        // What has happened before its answer has been received.
        self.value("0");
        let of = |method: &str| -> Vec<Value> {
            self.browser.events.iter().filter(|event| event["method"] == method).cloned().collect()
        };
        let requests = of("Network.requestWillBeSent");
        let urls = requests.iter().filter_map(|event| event["params"]["request"]["url"].as_str());
        let complaints = ["Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"];
        (urls.map(str::to_owned).collect(), complaints.into_iter().flat_map(of).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
