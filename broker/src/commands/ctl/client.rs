//! One HTTP request after another, over plain sockets: more is not needed to reach a listener on
//! the same machine.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// How long the broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer: an export may be large.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// A broker's API, and as whom it is asked.
pub(super) struct Client {
    host: String,
    token: Option<String>,
    tenant: Option<String>,
}

impl Client {
    pub(super) fn new(
        url: &str,
        token: Option<String>,
        tenant: Option<String>,
    ) -> anyhow::Result<Client> {
        let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let host = host.filter(|host| !host.is_empty() && !host.contains('/'));
        let host = host.with_context(|| format!("`{url}`: expected http://host:port"))?;
        for text in [&token, &tenant].into_iter().flatten() {
            if text.bytes().any(|byte| byte.is_ascii_control()) {
                bail!("a token and a tenant hold no line ends");
            }
        }
        let host = if has_port(host) { host.to_owned() } else { format!("{host}:80") };
        Ok(Client { host, token, tenant })
    }

    /// Makes a call.
    pub(super) fn post(
        &self,
        path: &str,
        body: &Value,
        user: Option<&str>,
    ) -> anyhow::Result<Value> {
        if path.bytes().chain(user.unwrap_or_default().bytes()).any(|byte| byte <= b' ') {
            bail!("an operation and a user are words");
        }
        let (status, answer) = self.exchange(path, &body.to_string(), user)?;
        let value: Value = serde_json::from_slice(&answer)
            .with_context(|| format!("{}: status {status}, and no JSON", self.host))?;
        if status == 200 {
            return Ok(value);
        }
        let message = value.get("message").and_then(Value::as_str).unwrap_or("no reason given");
        bail!("{path}: {message} ({status})");
    }

    fn exchange(
        &self,
        path: &str,
        body: &str,
        user: Option<&str>,
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let unreachable = || format!("the broker at {} cannot be asked", self.host);
        let mut stream = self.connect().with_context(unreachable)?;
        let mut head = format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n",
            self.host,
            body.len()
        );
        let token = self.token.as_ref().map(|token| format!("Bearer {token}"));
        for (name, value) in [
            ("authorization", token.as_deref()),
            ("x-hoopoe-tenant", self.tenant.as_deref()),
            ("x-hoopoe-user", user),
        ] {
            if let Some(value) = value {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        head.push_str(body);
        stream.write_all(head.as_bytes()).with_context(unreachable)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).with_context(unreachable)?;
        parse(&answer).with_context(|| format!("{}: this is no HTTP answer", self.host))
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let mut last = std::io::Error::other("the name has no address");
        for address in self.host.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(TIMEOUT))?;
                    stream.set_write_timeout(Some(TIMEOUT))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn has_port(host: &str) -> bool {
    let rest = host.rsplit(']').next().unwrap_or(host);
    rest.contains(':')
}

/// Status and body of an answer whose end is the connection's; the broker sends no other kind.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, answer[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host() {
        for (url, host) in [
            ("http://127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("http://localhost/", Some("localhost:80")),
            ("http://[::1]:1", Some("[::1]:1")),
            ("http://[::1]", Some("[::1]:80")),
            ("https://x", None),
            ("x:1", None),
            ("http://", None),
            ("http://x/y", None),
        ] {
            let client = Client::new(url, None, None).ok().map(|client| client.host);
            assert_eq!(client.as_deref(), host, "{url}");
        }
        assert!(Client::new("http://x", Some("a\r\nb".into()), None).is_err());
    }

    #[test]
    fn answers_are_taken_apart() {
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(answer), Some((404, b"{}".to_vec())));
        assert_eq!(parse(b"hello"), None);
    }
}
