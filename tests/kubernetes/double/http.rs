//! Requests and answers of HTTP/1.1 on one connection.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rustls::{ServerConnection, StreamOwned};
use serde_json::Value;

use super::{Fault, Shared, resources, watches};
use elect_keeper::clock;

const REQUEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A request, read to its end.
pub struct HttpRequest {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub token: Option<String>,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// The answer to a request.
pub enum Reply {
    Json(u16, Value),
    /// Plain text, as from a path that no API has.
    Text(u16, &'static str),
    Watch(watches::WatchRequest),
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

pub fn serve(stream: TcpStream, shared: &Arc<Shared>, run: u64) {
    let _ = stream.set_nodelay(true);
    let tls = shared.lock().tls.clone();
    let Ok(raw) = stream.try_clone() else { return };
    let result = match tls {
        None => serve_on(stream, &raw, shared, run),
        Some(tls) => match ServerConnection::new(tls) {
            Ok(connection) => serve_on(StreamOwned::new(connection, stream), &raw, shared, run),
            Err(error) => Err(io::Error::other(error)),
        },
    };
    // A client that is gone is no news.
    drop(result);
    let _ = raw.shutdown(Shutdown::Both);
}

fn serve_on(stream: impl Stream, raw: &TcpStream, shared: &Arc<Shared>, run: u64) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream)? {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        if !shared.serves(run) {
            return Ok(());
        }
        let fault = resources::fault(shared, &request);
        match fault {
            Some(Fault::Stall) => {
                waits_for_end(&mut stream);
                return Ok(());
            }
            Some(Fault::TooMany(seconds)) => {
                let body = resources::status(429, "TooManyRequests", "the server has received too many requests");
                let retry = format!("Retry-After: {seconds}\r\n");
                write_json(stream.get_mut(), shared, 429, &body, &retry)?;
                continue;
            }
            Some(Fault::Status(code)) => {
                let body = resources::status(code, "InternalError", "etcdserver: request timed out");
                write_json(stream.get_mut(), shared, code, &body, "")?;
                continue;
            }
            Some(Fault::ResetAfterCommit | Fault::StallAfterCommit) | None => {}
        }
        let reply = resources::answer(shared, &request);
        match fault {
            Some(Fault::ResetAfterCommit) => {
                let _ = raw.shutdown(Shutdown::Both);
                return Ok(());
            }
            Some(Fault::StallAfterCommit) => {
                waits_for_end(&mut stream);
                return Ok(());
            }
            Some(Fault::Stall | Fault::TooMany(_) | Fault::Status(_)) | None => {}
        }
        match reply {
            Reply::Json(code, body) => write_json(stream.get_mut(), shared, code, &body, "")?,
            Reply::Text(code, body) => {
                let head = head(shared, code, "text/plain", &format!("Content-Length: {}\r\n", body.len()));
                stream.get_mut().write_all(format!("{head}{body}").as_bytes())?;
            }
            Reply::Watch(watch) => {
                let head = head(shared, 200, "application/json", "Transfer-Encoding: chunked\r\n");
                stream.get_mut().write_all(head.as_bytes())?;
                stream.get_mut().flush()?;
                watch.follow(shared, run, |event| {
                    let line = format!("{event}\n");
                    write!(stream.get_mut(), "{:x}\r\n{line}\r\n", line.len())?;
                    stream.get_mut().flush()
                })?;
                stream.get_mut().write_all(b"0\r\n\r\n")?;
            }
        }
        stream.get_mut().flush()?;
    }
    Ok(())
}

/// Until the client gives up, or the server is killed.
fn waits_for_end(stream: &mut impl BufRead) {
    let _ = stream.fill_buf();
}

fn read_request(stream: &mut impl BufRead) -> io::Result<Option<HttpRequest>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("no request line"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = HttpRequest {
        method: method.to_owned(),
        path: decoded(path),
        query: query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect(),
        token: None,
        content_type: String::new(),
        body: Vec::new(),
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::Error::other("no end of the head"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "content-type" => value.trim().clone_into(&mut request.content_type),
            "authorization" => request.token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    if length > REQUEST_BYTES_MAX {
        return Err(io::Error::other("too large"));
    }
    stream.take(length).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn head(shared: &Shared, code: u16, kind: &str, more: &str) -> String {
    let offset = shared.lock().clock_offset;
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::wall_millis());
    let away = Duration::from_secs(offset.unsigned_abs());
    let date = httpdate::fmt_http_date(if offset < 0 { now - away } else { now + away });
    format!("HTTP/1.1 {code} Answer\r\nDate: {date}\r\nContent-Type: {kind}\r\n{more}\r\n")
}

fn write_json(stream: &mut impl Write, shared: &Shared, code: u16, body: &Value, more: &str) -> io::Result<()> {
    let body = body.to_string();
    let head = head(shared, code, "application/json", &format!("{more}Content-Length: {}\r\n", body.len()));
    // In one piece, as a server writes a small answer.
    stream.write_all(format!("{head}{body}").as_bytes())?;
    stream.flush()
}
