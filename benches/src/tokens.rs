//! Passwords made for a run: a token for every client, asked for at a broker's HTTP API beforehand.
//!
//! Speaks as much HTTP/1.1 as that takes: `POST` with a user in JSON, and `token` in the answer.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// Requests under way: a broker that syncs each token to its disk syncs several at once.
const CONNECTIONS: usize = 8;
/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// Where tokens are made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mint {
    host: String,
    path: String,
    bearer: Option<String>,
}

impl Mint {
    /// Reads `http://host:port/path`.
    pub(crate) fn new(url: &str, bearer: Option<String>) -> Result<Mint> {
        let rest = url.strip_prefix("http://");
        let rest = rest.ok_or_else(|| anyhow!("--tokens {url}: must begin with http://"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !host.contains(':') {
            bail!("--tokens {url}: must name a port");
        }
        Ok(Mint { host: host.to_owned(), path: format!("/{path}"), bearer })
    }

    /// A token for each of these users, in their order.
    pub(crate) fn tokens(&self, users: &[String]) -> Result<Vec<String>> {
        let share = users.len().div_ceil(CONNECTIONS).max(1);
        let parts: Vec<Result<Vec<String>>> = thread::scope(|scope| {
            let asking: Vec<_> =
                users.chunks(share).map(|part| scope.spawn(|| self.ask_all(part))).collect();
            let join = |asking: thread::ScopedJoinHandle<'_, Result<Vec<String>>>| {
                asking.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
            };
            asking.into_iter().map(join).collect()
        });
        let mut tokens = Vec::with_capacity(users.len());
        for part in parts {
            tokens.extend(part.with_context(|| format!("tokens of {}{}", self.host, self.path))?);
        }
        Ok(tokens)
    }

    fn ask_all(&self, users: &[String]) -> Result<Vec<String>> {
        let stream = TcpStream::connect(&self.host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        let bearer = self.bearer.as_ref();
        let bearer = bearer.map(|b| format!("Authorization: Bearer {b}\r\n")).unwrap_or_default();
        let mut tokens = Vec::with_capacity(users.len());
        for user in users {
            let body = json!({ "user": user }).to_string();
            let request = format!(
                "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{bearer}\
                 Content-Length: {}\r\n\r\n{body}",
                self.path,
                self.host,
                body.len()
            );
            stream.write_all(request.as_bytes())?;
            let (status, body) = answer(&mut answers)?;
            let value: Value = serde_json::from_slice(&body).unwrap_or_default();
            match value["token"].as_str() {
                Some(token) if status == 200 => tokens.push(token.to_owned()),
                _ => bail!("{user}: {status}: {}", String::from_utf8_lossy(&body)),
            }
        }
        Ok(tokens)
    }
}

/// Reads one answer: its status and body, whose length it must tell.
fn answer(from: &mut impl BufRead) -> Result<(u16, Vec<u8>)> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| anyhow!("no HTTP: {line:?}"))?;
    let mut len = 0;
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            bail!("the answer was cut short");
        }
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            len = value.trim().parse()?;
        }
    }
    if len > MAX_ANSWER {
        bail!("an answer of {len} bytes");
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let mint = Mint::new("http://127.0.0.1:8080/v1/tokens", None).unwrap();
        assert_eq!((&*mint.host, &*mint.path), ("127.0.0.1:8080", "/v1/tokens"));
        for wrong in ["https://a:1/x", "http://a/x", "a:1"] {
            assert!(Mint::new(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_are_read_one_after_the_other() {
        let mut text =
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\n{}HTTP/1.1 429 No\r\n\r\n"[..];
        assert_eq!(answer(&mut text).unwrap(), (200, b"{}".to_vec()));
        assert_eq!(answer(&mut text).unwrap(), (429, Vec::new()));
        assert!(answer(&mut text).is_err());
    }
}
