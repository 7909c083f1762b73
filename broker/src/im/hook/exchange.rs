//! Asking the service: one HTTP request after another over a connection that is kept, each with
//! its time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use serde::Deserialize;

/// Bytes of an answer, head and body each.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Time for an answer that must be there already.
const LAST_LOOK: Duration = Duration::from_millis(1);
/// Characters of a refusal's text.
const MESSAGE_CHARS_MAX: usize = 256;

/// What the service says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The message may pass.
    Allowed,
    /// It may not, and why.
    Refused(String),
}

/// The answer's body.
#[derive(Deserialize)]
struct Judged {
    allow: bool,
    #[serde(default)]
    message: Option<String>,
}

/// Whom a service over TLS is to be signed by, when no file is named: where systems keep them.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A connection to the service.
enum Link {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Link {
    fn socket(&self) -> &TcpStream {
        match self {
            Link::Plain(socket) => socket,
            Link::Secure(stream) => stream.get_ref(),
        }
    }
}

impl Read for Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Plain(socket) => socket.read(into),
            Link::Secure(stream) => stream.read(into),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Link::Plain(socket) => socket.write(bytes),
            Link::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Link::Plain(socket) => socket.flush(),
            Link::Secure(stream) => stream.flush(),
        }
    }
}

/// The service.
pub(in crate::im) struct Service {
    host: String,
    head: String,
    timeout: Duration,
    /// Its name and whom it has to be signed by; `None`: it is asked in the clear.
    secure: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    open: Option<BufReader<Link>>,
}

impl Service {
    /// At an `http[s]://host[:port][/path]`, which the settings have checked. With `https` it is
    /// to be signed by an authority in the PEM file `authorities`, by default the system's.
    ///
    /// # Errors
    /// When that file cannot be read.
    pub(in crate::im) fn new(
        url: &str,
        authorities: Option<&Path>,
        token: Option<String>,
        timeout: Duration,
    ) -> anyhow::Result<Service> {
        let (rest, port) = match url.strip_prefix("https://") {
            Some(rest) => (rest, 443),
            None => (url.strip_prefix("http://").unwrap_or(url), 80),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let mut head =
            format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n");
        if let Some(token) = token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        let has_port = host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        let name =
            if has_port { host.rsplit_once(':').map_or(host, |(name, _)| name) } else { host };
        let secure = if port == 443 {
            let authorities = authorities.unwrap_or(Path::new(SYSTEM_AUTHORITIES));
            let trusted = crate::transport::client_config(authorities)
                .with_context(|| format!("who may sign for {url}"))?;
            let name = name.trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(name).context("the name in an https address")?;
            Some((name, Arc::new(trusted)))
        } else {
            None
        };
        let host = if has_port { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Service { host, head, timeout, secure, open: None })
    }

    /// Asks, once more over a new connection if the one that was kept has gone.
    pub(super) fn ask(&mut self, question: &str) -> io::Result<Verdict> {
        let (status, answer) = self.post("", question)?;
        if status != 200 {
            return Err(invalid(format!("the service answered with status {status}")));
        }
        let judged: Judged = serde_json::from_slice(&answer).map_err(invalid)?;
        let message = judged.message.unwrap_or_else(|| "refused by the content hook".to_owned());
        let message = message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX);
        Ok(if judged.allow { Verdict::Allowed } else { Verdict::Refused(message.collect()) })
    }

    /// Posts a body, with more header lines (each ended by CR LF); gives status and body of the
    /// answer. What cannot be connected to is told by [`is_unreachable`].
    pub(in crate::im) fn post(&mut self, head: &str, body: &str) -> io::Result<(u16, Vec<u8>)> {
        let until = Instant::now() + self.timeout;
        if let Some(kept) = self.open.take() {
            match self.exchange(kept, head, body, until) {
                Ok(answer) => return Ok(answer),
                Err(error) if is_timeout(&error) => return Err(error),
                // Closed since it was used last: the service has not heard of this.
                Err(_) => {}
            }
        }
        let connection = self
            .connect(until)
            .map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))?;
        self.exchange(connection, head, body, until)
    }

    fn connect(&self, until: Instant) -> io::Result<BufReader<Link>> {
        let mut last = io::Error::other("the name has no address");
        for address in self.host.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(until)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(BufReader::new(self.secured(stream)?));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// TLS where it is wanted; the handshake happens with the first request, in its time.
    fn secured(&self, socket: TcpStream) -> io::Result<Link> {
        let Some((name, trusted)) = &self.secure else { return Ok(Link::Plain(socket)) };
        let session =
            ClientConnection::new(trusted.clone(), name.clone()).map_err(io::Error::other)?;
        Ok(Link::Secure(Box::new(StreamOwned::new(session, socket))))
    }

    fn exchange(
        &mut self,
        mut connection: BufReader<Link>,
        more: &str,
        body: &str,
        until: Instant,
    ) -> io::Result<(u16, Vec<u8>)> {
        let head = &self.head;
        let request = format!("{head}{more}content-length: {}\r\n\r\n{body}", body.len());
        let socket = connection.get_ref().socket();
        socket.set_write_timeout(Some(left(until).unwrap_or(LAST_LOOK)))?;
        connection.get_mut().write_all(request.as_bytes())?;
        connection.get_mut().flush()?;
        // Looked for once even when the time is over: what keeps this machine busy is no fault of
        // the service's.
        let socket = connection.get_ref().socket();
        socket.set_read_timeout(Some(left(until).unwrap_or(LAST_LOOK)))?;
        if connection.fill_buf()?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (status, answer, keeps) = read_answer(&mut connection, until)?;
        if keeps {
            self.open = Some(connection);
        }
        Ok((status, answer))
    }
}

/// Whether the service was not even there: it cannot have taken anything.
pub(in crate::im) fn is_unreachable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected
}

/// Whether the service had its time, and did not answer.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn left(until: Instant) -> io::Result<Duration> {
    match until.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A reader whose every read keeps to the time that is left.
struct Timed<'a> {
    inner: &'a mut BufReader<Link>,
    until: Instant,
}

impl Timed<'_> {
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            self.inner.get_ref().socket().set_read_timeout(Some(left(self.until)?))?;
            let buffer = self.inner.fill_buf()?;
            if buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            line.extend_from_slice(&buffer[..taken]);
            self.inner.consume(taken);
            if line.len() > ANSWER_BYTES_MAX {
                return Err(invalid("a line of the answer is too long"));
            }
            if end.is_some() {
                let text = String::from_utf8(line).map_err(invalid)?;
                return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
            }
        }
    }

    /// What comes until the connection closes; over TLS, until it says that it does.
    fn rest(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            self.inner.get_ref().socket().set_read_timeout(Some(left(self.until)?))?;
            let buffer = self.inner.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            if into.len() + buffer.len() > ANSWER_BYTES_MAX {
                return Err(invalid("the answer is too long"));
            }
            into.extend_from_slice(buffer);
            let taken = buffer.len();
            self.inner.consume(taken);
        }
    }

    fn bytes(&mut self, count: usize, into: &mut Vec<u8>) -> io::Result<()> {
        if into.len() + count > ANSWER_BYTES_MAX {
            return Err(invalid("the answer is too long"));
        }
        let mut missing = count;
        let mut piece = [0; 4096];
        while missing > 0 {
            self.inner.get_ref().socket().set_read_timeout(Some(left(self.until)?))?;
            let room = missing.min(piece.len());
            let read = self.inner.read(&mut piece[..room])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into.extend_from_slice(&piece[..read]);
            missing -= read;
        }
        Ok(())
    }
}

/// Status and body of an answer, and whether the connection can be used again.
fn read_answer(
    connection: &mut BufReader<Link>,
    until: Instant,
) -> io::Result<(u16, Vec<u8>, bool)> {
    let mut timed = Timed { inner: connection, until };
    let line = timed.line()?;
    let (version, rest) = line.split_once(' ').unwrap_or_default();
    let status = rest.get(..3).and_then(|status| status.parse::<u16>().ok());
    let Some(status) = status.filter(|_| version.starts_with("HTTP/1.")) else {
        return Err(invalid(format!("the service answered `{line}`")));
    };
    let (mut length, mut chunked, mut keeps) = (None, false, version == "HTTP/1.1");
    if status == 204 {
        // It has no body, and need not say so.
        length = Some(0);
    }
    loop {
        let line = timed.line()?.to_ascii_lowercase();
        let Some((name, value)) = line.split_once(':') else {
            if line.is_empty() {
                break;
            }
            return Err(invalid("the answer is no HTTP"));
        };
        match (name, value.trim()) {
            ("content-length", value) => length = Some(value.parse().map_err(invalid)?),
            ("transfer-encoding", value) => chunked = value.ends_with("chunked"),
            ("connection", "close") => keeps = false,
            _ => {}
        }
    }
    let mut body = Vec::new();
    match length {
        _ if chunked => loop {
            let line = timed.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(invalid)?;
            timed.bytes(size, &mut body)?;
            timed.line()?;
            if size == 0 {
                break;
            }
        },
        Some(length) => timed.bytes(length, &mut body)?,
        None => {
            // The body ends with the connection (RFC 9112, 6.3).
            timed.rest(&mut body)?;
            keeps = false;
        }
    }
    Ok((status, body, keeps))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A service that gives these answers, one connection for each list, and what it was asked.
    fn service(answers: Vec<Vec<&'static str>>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/judge", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            let mut asked = Vec::new();
            for answers in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                for answer in answers {
                    asked.push(read_request(&mut reader));
                    reader.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            }
            asked
        });
        (url, served)
    }

    fn read_request(reader: &mut BufReader<TcpStream>) -> String {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        head + &String::from_utf8(body).unwrap()
    }

    fn plain(url: &str, timeout: Duration) -> Service {
        Service::new(url, None, None, timeout).unwrap()
    }

    const YES: &str = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"allow\":true}";
    const NO: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        10\r\n{\"allow\":false, \r\n10\r\n\"message\":\"rude\"\r\n1\r\n}\r\n0\r\n\r\n";
    const BROKEN: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn the_service_is_asked_over_a_connection_that_is_kept() {
        let (url, served) = service(vec![vec![YES, NO], vec![YES]]);
        let patience = Duration::from_secs(20);
        let mut service = Service::new(&url, None, Some("secret".into()), patience).unwrap();
        assert_eq!(service.ask("{\"n\":1}").unwrap(), Verdict::Allowed);
        assert_eq!(service.ask("{\"n\":2}").unwrap(), Verdict::Refused("rude".into()));
        // The connection has gone: a new one is made.
        assert_eq!(service.ask("{\"n\":3}").unwrap(), Verdict::Allowed);
        let asked = served.join().unwrap();
        assert!(asked[0].starts_with("POST /judge HTTP/1.1\r\n"), "{}", asked[0]);
        assert!(asked[0].contains("authorization: Bearer secret\r\n"), "{}", asked[0]);
        assert!(asked[0].ends_with("{\"n\":1}") && asked[2].ends_with("{\"n\":3}"));
    }

    /// A machine that had no time for it must not be taken for a service that fails.
    #[test]
    fn a_connection_that_was_closed_meanwhile_counts_as_no_answer_however_late_that_is_seen() {
        let (url, served) = service(vec![vec![YES]]);
        let mut service = plain(&url, Duration::from_secs(20));
        assert_eq!(service.ask("{}").unwrap(), Verdict::Allowed);
        served.join().unwrap();
        service.timeout = Duration::ZERO;
        let error = service.ask("{}").unwrap_err();
        assert!(is_unreachable(&error), "{error}");
    }

    #[test]
    fn another_answer_is_none() {
        for answer in [BROKEN, "HTTP/1.1 200 OK\r\n\r\n", "hello\r\n"] {
            let (url, served) = service(vec![vec![answer]]);
            let mut service = plain(&url, Duration::from_secs(20));
            assert!(service.ask("{}").is_err(), "{answer}");
            served.join().unwrap();
        }
        // A port that no system picks: nobody listens there.
        let mut service = plain("http://127.0.0.1:1", Duration::from_secs(20));
        assert!(service.ask("{}").is_err());
    }

    #[test]
    fn an_answer_without_a_length_goes_on_until_the_connection_closes() {
        const REFUSED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"allow\":false}";
        const OLD: &str = "HTTP/1.0 200 OK\r\n\r\n{\"allow\":true}";
        const KEPT: &str = "HTTP/1.1 202 Yes\r\n\r\nok";
        let (url, served) = service(vec![vec![REFUSED], vec![OLD], vec![YES, KEPT], vec![YES]]);
        let mut service = plain(&url, Duration::from_secs(20));
        assert!(matches!(service.ask("{}").unwrap(), Verdict::Refused(_)));
        assert!(service.open.is_none(), "it is over");
        assert_eq!(service.ask("{}").unwrap(), Verdict::Allowed);
        assert_eq!(service.ask("{}").unwrap(), Verdict::Allowed);
        assert_eq!(service.post("", "{}").unwrap(), (202, b"ok".to_vec()));
        assert_eq!(service.ask("{}").unwrap(), Verdict::Allowed);
        assert_eq!(served.join().unwrap().len(), 5, "each asked once");
    }

    #[test]
    fn an_answer_without_a_length_has_its_bytes_and_its_time() {
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(ANSWER_BYTES_MAX + 1));
        let (url, served) = service(vec![vec![long.leak()]]);
        let error = plain(&url, Duration::from_secs(20)).post("", "{}").unwrap_err();
        assert_eq!(error.to_string(), "the answer is too long");
        served.join().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nand then").unwrap();
            // Open until the one who asked has gone.
            while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        });
        let error = plain(&url, Duration::from_millis(200)).post("", "{}").unwrap_err();
        assert!(is_timeout(&error), "{error}");
        served.join().unwrap();
    }

    #[test]
    fn an_answer_has_its_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Accepted by the system, and never answered.
        let mut service = plain(&url, Duration::from_millis(1));
        assert!(service.ask("{}").is_err());
    }
}
