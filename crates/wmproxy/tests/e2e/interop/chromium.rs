//! Chromium, and a page of it that is driven by the DevTools protocol.

use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Addr, Client, TempDir};

use super::program;

/// What a browser may take until it does what it is told: the first start on a slow machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with a page, in a group of processes of its own, which ends with it.
pub(super) struct Browser(Child);

impl Browser {
    /// Opens a URL with these further options. All that it writes is in `dir`.
    pub(super) fn open(dir: &TempDir, url: &str, options: &[&str]) -> Self {
        let log = std::fs::File::create(dir.join("chromium.log")).unwrap();
        let mut command = Command::new(program("chromium"));
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--ignore-certificate-errors", "--no-first-run", "--disable-background-networking"]);
        command.args(["--disable-crash-reporter", "--disable-breakpad"]).args(options);
        command.arg(format!("--user-data-dir={}", dir.join("profile").display())).arg(url);
        // Its settings and caches stay in the directory, too.
        command.env("HOME", dir.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        Browser(command.spawn().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// A page that a test drives.
pub(super) struct Page {
    socket: WebSocket<TcpStream>,
    last: u64,
    /// What the browser told without being asked.
    events: Vec<Value>,
    _browser: Browser,
}

impl Page {
    /// Starts a browser with an empty page.
    pub(super) fn open(dir: &TempDir) -> Self {
        Page::open_with(dir, &[])
    }

    /// The same with further options.
    pub(super) fn open_with(dir: &TempDir, options: &[&str]) -> Self {
        let options = [&["--remote-debugging-port=0"], options].concat();
        let browser = Browser::open(dir, "about:blank", &options);
        let file = dir.join("profile/DevToolsActivePort");
        let port = || std::fs::read_to_string(&file).ok()?.lines().next()?.parse::<u16>().ok();
        let log = || std::fs::read_to_string(dir.join("chromium.log")).unwrap_or_default();
        assert!(holds_within(PATIENCE, || port().is_some()), "no port; the browser said:\n{}", log());
        let addr = Addr::local(port().unwrap());
        let mut url = None;
        let found = holds_within(PATIENCE, || {
            url = page_url(&addr);
            url.is_some()
        });
        assert!(found, "no page; the browser said:\n{}", log());
        let stream = TcpStream::connect(addr.inet()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(url.unwrap(), stream).unwrap();
        let mut page = Page { socket, last: 0, events: Vec::new(), _browser: browser };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// When it fails.
    pub(super) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let text = json!({ "id": self.last, "method": method, "params": params }).to_string();
        self.socket.send(Message::text(text)).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let mut message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// Goes to a URL, and waits until all of it is there.
    pub(super) fn visit(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until(&format!("location.href === {} && document.readyState === 'complete'", json!(url)));
    }

    /// What an expression comes to, which may be a promise.
    ///
    /// # Panics
    /// When it throws.
    pub(super) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// When it does not become so.
    pub(super) fn until(&mut self, expression: &str) {
        let held = holds_within(PATIENCE, || self.eval(&format!("!!({expression})")) == true);
        assert!(held, "waited in vain for {expression}; the page: {}", self.eval("document.body.innerText"));
    }

    /// Presses a key: its name as `KeyboardEvent.key` has it.
    pub(super) fn press(&mut self, key: &str) {
        let mut params = json!({ "type": "keyDown", "key": key });
        if key.chars().count() == 1 {
            params["text"] = key.into();
        }
        // What a key does by itself goes by its number.
        let code = match key {
            "Enter" => {
                params["text"] = "\r".into();
                13
            }
            "Escape" => 27,
            "Backspace" => 8,
            "Tab" => 9,
            "ArrowUp" => 38,
            "ArrowDown" => 40,
            _ => 0,
        };
        params["windowsVirtualKeyCode"] = code.into();
        self.call("Input.dispatchKeyEvent", params.clone());
        params["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", params);
    }

    /// Takes the size of a phone, or of a screen.
    pub(super) fn resize(&mut self, width: u32, height: u32) {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// Prefers light or dark.
    pub(super) fn prefer(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Writes what is to be seen to a file.
    pub(super) fn shoot(&mut self, path: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes = base64::prelude::BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The events of a method so far.
    pub(super) fn events(&self, method: &str) -> Vec<&Value> {
        let named = self.events.iter().filter(|event| event["method"] == method);
        named.map(|event| &event["params"]).collect()
    }
}

/// Where the first page of a browser is driven.
fn page_url(addr: &Addr) -> Option<String> {
    // It answers to no other name than its own.
    let answer = Client::once(addr, &format!("GET /json/list HTTP/1.1\r\nHost: {addr}\r\n\r\n"));
    let pages: Value = serde_json::from_slice(&answer.body).ok()?;
    let page = pages.as_array()?.iter().find(|page| page["type"] == "page")?;
    Some(page["webSocketDebuggerUrl"].as_str()?.to_owned())
}
