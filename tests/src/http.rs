//! A small HTTP client for the broker's API: one request a connection, JSON both ways.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::DEADLINE;

/// Who asks where.
#[derive(Clone, Debug)]
pub struct Http {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl HttpAnswer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

impl Http {
    /// Nobody in particular.
    pub fn new(address: SocketAddr) -> Http {
        Http { address, headers: Vec::new() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Http {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Http {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// An operator who acts for a user.
    #[must_use]
    pub fn acting_for(self, user: &str) -> Http {
        self.header("x-hoopoe-user", user)
    }

    /// Makes a request and reads the answer to its end.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> HttpAnswer {
        let mut stream = TcpStream::connect_timeout(&self.address, DEADLINE)
            .unwrap_or_else(|error| panic!("no connection to {}: {error}", self.address));
        stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout can be set");
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        stream.write_all(request.as_bytes()).expect("the request can be sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the answer comes in time");
        let answer = String::from_utf8(answer).expect("the answer is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        HttpAnswer {
            status: status.unwrap_or_else(|| panic!("no status in {head}")),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Calls an operation that is expected to succeed.
    pub fn call(&self, path: &str, body: Value) -> Value {
        let answer = self.try_call(path, body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Calls an operation.
    pub fn try_call(&self, path: &str, body: Value) -> HttpAnswer {
        self.ask("POST", &format!("/v1/{path}"), &body.to_string())
    }

    /// Calls an operation that is expected to fail with a status, and gives the error word.
    pub fn refused(&self, path: &str, body: Value, status: u16) -> String {
        let answer = self.try_call(path, body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let error = answer.json();
        for field in ["code", "error", "message"] {
            assert!(!error[field].is_null(), "{path}: {error}");
        }
        error["error"].as_str().unwrap_or_default().to_owned()
    }
}
