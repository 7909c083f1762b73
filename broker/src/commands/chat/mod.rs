//! `hoopoe chat`: the messaging profile at a terminal, or line by line through pipes.
//!
//! Nothing but MQTT 5 goes over the wire: what this chat does, any client can. `order` reads what a
//! person types, `client` is the MQTT session, `link` its bytes, `screen` puts into words what
//! comes. Here: the loop over both, and what is remembered of the conversations.
//!
//! A line is taken up when the one before it has been answered, so that a file of lines is carried
//! out in its order.

mod client;
mod link;
mod order;
mod screen;

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use hoopoe_codec::{Packet, Publish, ReasonCode, Receiver as Side, Version, decode};
use hoopoe_im::id::is_id;
use serde_json::{Value, json};

use self::client::{Asked, Client, Happened, Login};
use self::link::Server;
use self::order::{HELP, Order, Place};
use crate::cli::ChatArgs;

/// What the threads that read may have waiting here.
const EVENTS_MAX: usize = 64;
/// Conversations whose last seen message is remembered.
const SEEN_MAX: usize = 10_000;
/// The first wait before connecting again, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// What the reading threads say.
enum Event {
    /// A line was typed.
    Line(String),
    /// Nothing more will be typed.
    LinesEnd,
    /// Bytes came on the connection of this number.
    Bytes(u64, Vec<u8>),
    /// That connection is over.
    Closed(u64, String),
}

/// Chats until the input ends.
///
/// # Errors
/// When the broker cannot be reached at the start, refuses the user, or sends the chat away.
pub fn chat(args: &ChatArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    if !is_id(&args.user) || !is_id(&args.device) {
        bail!("user and device are 1 to 64 of letters, digits and . _ - : @");
    }
    let login =
        Login { user: args.user.clone(), device: args.device.clone(), password: password(args)? };
    let server = Server::new(&args.server, args.ca.as_deref())?;
    let (events, happenings) = sync_channel(EVENTS_MAX);
    let (permits, permitted) = sync_channel(1);
    let lines = events.clone();
    std::thread::spawn(move || read_lines(&lines, &permitted));
    let mut chat = Chat {
        client: Client::new(server, login),
        out,
        events,
        permits,
        connection: 0,
        retry_at: None,
        retry: RETRY_FIRST,
        ping_at: Instant::now() + Client::ping_interval(),
        here: None,
        seen: BTreeMap::new(),
        page_of: String::new(),
        page: BTreeMap::new(),
        cids: Cids::new()?,
        greeted: false,
        permit_given: false,
        leaving: false,
    };
    chat.connect()?;
    chat.run(&happenings)
}

/// The password of the variable, or the one typed, or none: a broker of this machine without users
/// asks for none.
fn password(args: &ChatArgs) -> anyhow::Result<Vec<u8>> {
    match &args.password_env {
        Some(name) => {
            let value = std::env::var_os(name).with_context(|| format!("{name} is not set"))?;
            Ok(value.into_encoded_bytes())
        }
        None if args.ask_password && io::stdin().is_terminal() => {
            let text = rpassword::prompt_password(format!("Password of {}: ", args.user))?;
            Ok(text.into_bytes())
        }
        None if args.ask_password => bail!("no terminal to ask for the password at"),
        None => Ok(Vec::new()),
    }
}

/// Reads one line per permit.
fn read_lines(events: &SyncSender<Event>, permits: &Receiver<()>) {
    let mut input = io::stdin().lock();
    while permits.recv().is_ok() {
        let mut line = Vec::new();
        let event = match input.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => Event::LinesEnd,
            Ok(_) => Event::Line(String::from_utf8_lossy(&line).into_owned()),
        };
        let end = matches!(event, Event::LinesEnd);
        if events.send(event).is_err() || end {
            return;
        }
    }
}

/// Reads a connection to its end.
fn read_socket(mut socket: TcpStream, number: u64, events: &SyncSender<Event>) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let event = match socket.read(&mut chunk) {
            Ok(0) => Event::Closed(number, "the broker closed the connection".to_owned()),
            Ok(count) => Event::Bytes(number, chunk[..count].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Event::Closed(number, error.to_string()),
        };
        let closed = matches!(event, Event::Closed(..));
        if events.send(event).is_err() || closed {
            return;
        }
    }
}

/// Client message ids that no other run of the chat gives.
struct Cids {
    run: String,
    count: u64,
}

impl Cids {
    fn new() -> anyhow::Result<Cids> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
        Ok(Cids { run: format!("{:016x}", u64::from_be_bytes(bytes)), count: 0 })
    }

    fn next(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.run, self.count)
    }
}

/// A chat under way.
struct Chat<'o, W> {
    client: Client,
    out: &'o mut W,
    events: SyncSender<Event>,
    permits: SyncSender<()>,
    /// The number of the present connection.
    connection: u64,
    retry_at: Option<Instant>,
    retry: Duration,
    ping_at: Instant,
    /// Where messages go.
    here: Option<Place>,
    /// The last entry seen of each conversation.
    seen: BTreeMap<String, u64>,
    /// The conversation whose history is being read, and its entries so far by seq.
    page_of: String,
    page: BTreeMap<u64, String>,
    cids: Cids,
    /// The broker has said hello once: what is typed is carried out from then on.
    greeted: bool,
    /// The reader of lines may read one.
    permit_given: bool,
    leaving: bool,
}

impl<W: Write> Chat<'_, W> {
    fn run(mut self, events: &Receiver<Event>) -> anyhow::Result<ExitCode> {
        loop {
            if !self.client.is_busy() {
                if self.leaving {
                    self.client.leave();
                    return Ok(ExitCode::SUCCESS);
                }
                if self.greeted && !self.permit_given {
                    self.permit_given = self.permits.try_send(()).is_ok();
                }
            }
            match events.recv_timeout(self.until_next_duty()) {
                Ok(event) => self.event(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("nothing more can happen"),
            }
            self.duties()?;
        }
    }

    fn event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::LinesEnd => self.leaving = true,
            Event::Line(line) => {
                self.permit_given = false;
                match order::parse(&line) {
                    Ok(order) => self.order(order)?,
                    Err(what) => self.say(&what)?,
                }
            }
            Event::Bytes(number, bytes) if number == self.connection => {
                match self.client.take(&bytes) {
                    Ok(happened) => {
                        for what in happened {
                            self.happened(what)?;
                        }
                    }
                    Err(error) => self.lost(&error.to_string())?,
                }
            }
            Event::Closed(number, why) if number == self.connection => self.lost(&why)?,
            // Of a connection that has been given up.
            Event::Bytes(..) | Event::Closed(..) => {}
        }
        Ok(())
    }

    /// How long nothing has to be done unless something happens.
    fn until_next_duty(&self) -> Duration {
        let next = self.retry_at.map_or(self.ping_at, |at| at.min(self.ping_at));
        let next = next.saturating_duration_since(Instant::now());
        // A request that is given up is noticed within a second.
        if self.client.is_busy() { next.min(Duration::from_secs(1)) } else { next }
    }

    fn duties(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if now >= self.ping_at {
            self.ping_at = now + Client::ping_interval();
            if let Err(error) = self.client.ping() {
                self.lost(&error.to_string())?;
            }
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            if let Err(error) = self.connect() {
                self.lost(&format!("{error:#}"))?;
            }
        }
        if let Some(asked) = self.client.give_up(now, self.leaving) {
            self.say(&format!("no answer: {asked:?}"))?;
        }
        Ok(())
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        let socket = self.client.connect()?;
        self.connection += 1;
        let (number, events) = (self.connection, self.events.clone());
        std::thread::spawn(move || read_socket(socket, number, &events));
        Ok(())
    }

    fn lost(&mut self, why: &str) -> anyhow::Result<()> {
        if !self.greeted {
            bail!("{why}");
        }
        self.client.lost();
        self.connection += 1;
        self.retry_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY_LONGEST);
        self.say(&format!("connection lost ({why}); connecting again"))
    }

    /// Prints a line, or several.
    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{}", screen::harmless(text))?;
        self.out.flush()?;
        Ok(())
    }

    fn order(&mut self, order: Order) -> anyhow::Result<()> {
        let sent = match order {
            Order::Nothing => return Ok(()),
            Order::Help => return self.say(HELP),
            Order::Quit => {
                self.leaving = true;
                return Ok(());
            }
            Order::To(place) => {
                self.say(&format!("talking in {}", place.as_str()))?;
                self.here = Some(place);
                return Ok(());
            }
            Order::Call(op, body) => self.call(&op, &body),
            Order::Join(place) => self.join(place),
            Order::Status(show, text) => {
                let done = Asked::Done(format!("you are {show}"));
                self.client.publish(&format!("im/me/st/{show}"), text.as_bytes(), done)
            }
            Order::Attention(word) => {
                let done = Asked::Done("done".to_owned());
                self.client.publish(&format!("im/me/{word}"), b"", done)
            }
            order => match self.here.clone() {
                Some(here) => return self.order_here(&here, order),
                None => return self.say("where? /to u/bob says it"),
            },
        };
        self.sent(sent)
    }

    /// An order that is about the place one talks in.
    fn order_here(&mut self, here: &Place, order: Order) -> anyhow::Result<()> {
        let conv = here.as_str().to_owned();
        let letter = here.letter();
        let sent = match order {
            Order::Say(text) if letter == "r" => {
                let done = Asked::Done(format!("{conv} you: {text}"));
                self.client.publish(&format!("im/{conv}/msg"), text.as_bytes(), done)
            }
            Order::Say(text) => {
                let topic = format!("im/{conv}/msg/{}", self.cids.next());
                self.client.publish(&topic, text.as_bytes(), Asked::Message(conv))
            }
            Order::Burn(seconds, text) if letter == "u" => {
                let topic = format!("im/{conv}/burn/{seconds}/{}", self.cids.next());
                self.client.publish(&topic, text.as_bytes(), Asked::Message(conv))
            }
            Order::Typing if letter != "c" => {
                let done = Asked::Done("they are told".to_owned());
                self.client.publish(&format!("im/{conv}/sig/typing"), b"", done)
            }
            Order::Operate(what, seq, text) if letter != "r" => {
                let done = Asked::Done(format!("{conv}: {what} of #{seq} is done"));
                self.client.publish(&format!("im/me/op/{what}/{conv}/{seq}"), text.as_bytes(), done)
            }
            Order::Read if letter != "r" => {
                let Some(seq) = self.seen.get(&conv).copied() else {
                    return self.say(&format!("nothing has been seen of {conv}"));
                };
                let topic = format!("im/me/cur/{conv}/read/{seq}");
                self.client.publish(&topic, b"", Asked::Read(conv, seq))
            }
            Order::History(limit) if letter != "r" => {
                let body = json!({ "conv": conv, "limit": limit, "direction": "down" });
                self.call("sync/pull", &body)
            }
            Order::OfGroup(op, mut body) if letter == "g" => {
                body["group"] = here.id().into();
                self.call(&format!("group/{op}"), &body)
            }
            Order::Leave => match letter {
                "g" => self.call("group/leave", &json!({ "group": here.id() })),
                "c" => self.call("channel/unfollow", &json!({ "channel": here.id() })),
                "r" => self.client.exit(here.id()),
                _ => return self.say("nobody leaves a conversation of two; /to goes elsewhere"),
            },
            _ => return self.say(&format!("that cannot be done in {conv}")),
        };
        self.sent(sent)
    }

    fn join(&mut self, place: Place) -> io::Result<()> {
        let sent = match place.letter() {
            "r" => self.client.enter(place.id()),
            "g" => self.call("group/join", &json!({ "group": place.id() })),
            "c" => self.call("channel/follow", &json!({ "channel": place.id() })),
            _ => Ok(()),
        };
        self.here = Some(place);
        sent
    }

    fn call(&mut self, op: &str, body: &Value) -> io::Result<()> {
        self.page.clear();
        self.page_of = body["conv"].as_str().unwrap_or_default().to_owned();
        let req = self.cids.next();
        self.client.call(op, &req, body.to_string().as_bytes())
    }

    /// What could not be written goes out again over the next connection.
    fn sent(&mut self, sent: io::Result<()>) -> anyhow::Result<()> {
        match sent {
            Ok(()) => Ok(()),
            Err(error) => self.lost(&error.to_string()),
        }
    }

    fn happened(&mut self, what: Happened) -> anyhow::Result<()> {
        match what {
            Happened::Connected => {
                self.retry = RETRY_FIRST;
                Ok(())
            }
            Happened::Dismissed(why) => bail!("{why}"),
            Happened::Published(frame) => {
                let decoded = decode(Version::V5, Side::Client, &frame);
                match decoded {
                    Ok(Packet::Publish(publish)) => self.published(&publish),
                    _ => Ok(()),
                }
            }
            Happened::Answered(asked, Ok(pairs)) => self.done(asked, &pairs),
            Happened::Answered(_, Err((code, reason))) => self.refused(code, &reason),
        }
    }

    fn refused(&mut self, code: ReasonCode, reason: &str) -> anyhow::Result<()> {
        self.say(&format!("refused, {} ({:#04x}): {reason}", code.name(), code as u8))
    }

    fn done(&mut self, asked: Asked, pairs: &[(String, String)]) -> anyhow::Result<()> {
        match asked {
            Asked::Message(conv) => {
                let seq = pairs.iter().find(|(name, _)| name == "im-seq");
                let seq = seq.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
                self.see(&conv, seq);
                self.say(&format!("{conv} #{seq} is sent"))
            }
            Asked::Read(conv, seq) => self.say(&format!("{conv}: read up to #{seq}")),
            Asked::Enter(room) => self.say(&format!("you are in r/{room}")),
            Asked::Exit(room) => self.say(&format!("you have left r/{room}")),
            Asked::Done(said) => self.say(&said),
            Asked::Service(_) => Ok(()),
        }
    }

    fn see(&mut self, conv: &str, seq: u64) {
        if let Some(seen) = self.seen.get_mut(conv) {
            *seen = seq.max(*seen);
        } else if self.seen.len() < SEEN_MAX {
            self.seen.insert(conv.to_owned(), seq);
        }
    }

    fn published(&mut self, publish: &Publish<'_>) -> anyhow::Result<()> {
        if let Some(answer) = publish.topic.strip_prefix("im/me/res/") {
            let (req, status) = answer.split_once('/').unwrap_or((answer, ""));
            return match self.client.called(req).map(str::to_owned) {
                Some(op) => self.answered(&op, status, publish),
                None => Ok(()),
            };
        }
        if let Some(conv) = publish.topic.strip_prefix("im/me/in/") {
            self.see(conv, screen::seq(publish));
        }
        if publish.topic == "im/me/sys/hello" {
            self.greeted = true;
            let body = screen::json(publish);
            for conversation in body["conversations"].as_array().into_iter().flatten() {
                let last = conversation["last"].as_u64().unwrap_or(0);
                self.see(conversation["conv"].as_str().unwrap_or_default(), last);
            }
            let Some(said) = screen::words(publish) else { return Ok(()) };
            return self.say(&said);
        }
        match screen::words(publish) {
            Some(said) => self.say(&screen::one_line(&said)),
            None => Ok(()),
        }
    }

    fn answered(&mut self, op: &str, status: &str, publish: &Publish<'_>) -> anyhow::Result<()> {
        let body = screen::json(publish);
        if status == "m" {
            let line = screen::one_line(&screen::entry(&self.page_of, publish));
            self.page.insert(screen::seq(publish), line);
            return Ok(());
        }
        self.client.served();
        match status {
            "end" => {
                let mut page: Vec<String> = std::mem::take(&mut self.page).into_values().collect();
                page.push(format!("{} shown, the last is #{}", body["count"], body["last"]));
                self.say(&page.join("\n"))
            }
            "ok" => {
                let kind = op.strip_suffix("/create");
                if let Some(id) = kind.and_then(|kind| body[kind].as_str()) {
                    let letter = &op[..1];
                    if let Ok(place) = Place::parse(&format!("{letter}/{id}")) {
                        self.say(&format!("{} is there, talking in it", place.as_str()))?;
                        self.here = Some(place);
                        return Ok(());
                    }
                }
                self.say(&screen::answer(op, &body))
            }
            status => self.say(&screen::error(status, &body)),
        }
    }
}
