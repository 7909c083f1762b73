//! Brings clients in: connects them, a bounded number at a time, and subscribes.
//!
//! Messages that arrive meanwhile go to the scenario's own driver, so that nothing is missed by those
//! who were here early. The first client that cannot get in ends the run with the reason and remedy.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use hoopoe_codec::{QoS, ReasonCode};

use crate::clock::{now_ns, ns_to_secs};
use crate::net::{Down, Driver, Greeting, Incoming, Net, Target, Token, explain_connect};
use crate::run::{Run, Settings, histogram};

/// Filters in one SUBSCRIBE.
const FILTERS_PER_PACKET: usize = 50;
/// A connection that has not come up after this long ends the run.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who the clients are and what they subscribe to.
pub(crate) struct Roster<'a> {
    /// Start of all client identifiers.
    pub name: String,
    /// Number of the first client, for user names.
    pub first: usize,
    /// Sessions outlive the connection.
    pub persistent: bool,
    /// Forget what an earlier connection left; without it a session is expected to be there.
    pub clean: bool,
    /// Filters of each client; empty: no SUBSCRIBE.
    pub filters: &'a dyn Fn(u32) -> Vec<(String, QoS)>,
}

/// How long a persistent session lives when its client is away.
const SESSION_EXPIRY_SECS: u32 = 3600;

impl Roster<'_> {
    /// Opens the connection of one client and says CONNECT.
    pub(crate) fn greet<D: Driver>(
        &self,
        net: &mut Net,
        driver: &mut D,
        settings: &Settings,
        client: u32,
    ) {
        let token = settings.tokens.get(self.first + client as usize);
        let number = (self.first + client as usize).to_string();
        let id = format!("{}-{client}", self.name);
        let fill = |text: &Option<String>| {
            text.as_ref().map(|t| t.replace("{n}", &number).replace("{id}", &id))
        };
        let (username, password) = (fill(&settings.username), fill(&settings.password));
        let hello = Greeting {
            client_id: &id,
            clean: self.clean,
            session_expiry_secs: if self.persistent { SESSION_EXPIRY_SECS } else { 0 },
            username: username.as_deref(),
            password: token.map(String::as_str).or(password.as_deref()),
        };
        net.connect(driver, client, &hello);
    }
}

/// What came of it.
pub(crate) struct Gathered {
    /// Seconds from the first connect to the last client being in.
    pub secs: f64,
    /// Per client: from connect to CONNACK.
    pub connect: Histogram<u64>,
    /// How many found their session present.
    pub present: u64,
}

/// Lets `who` in; returns when all are in, or the run is being ended.
pub(crate) fn gather<D: Driver>(
    run: &Run,
    net: &mut Net,
    inner: &mut D,
    roster: &Roster<'_>,
    who: std::ops::Range<u32>,
) -> Result<Gathered> {
    let began = now_ns();
    let mut lobby = Lobby {
        inner,
        roster,
        target: &run.target,
        coming: HashMap::new(),
        connect: histogram(),
        present: 0,
        failure: None,
    };
    let mut next = who.start;
    let pending = run.shape.pending;
    let wait = Duration::from_millis(20);
    while (next < who.end || !lobby.coming.is_empty()) && !run.stopping() {
        let now = now_ns();
        let allowed =
            run.shape.ramp.map_or(u64::MAX, |ramp| 1 + (ns_to_secs(now - began) * ramp) as u64);
        while next < who.end
            && lobby.coming.len() < pending
            && u64::from(next - who.start) < allowed
        {
            lobby.coming.insert(next, Coming { began_ns: now_ns(), subscriptions: 0 });
            roster.greet(net, &mut lobby, &run.settings, next);
            next += 1;
        }
        let ramp_ns = run.shape.ramp.map(|ramp| now + (1e9 / ramp) as u64);
        net.turn(&mut lobby, wait, ramp_ns)?;
        if let Some(failure) = lobby.failure.take() {
            bail!("after {} of {} clients: {failure}", next - who.start, who.len());
        }
        lobby.check_patience(now)?;
        run.show(net);
    }
    let Lobby { connect, present, .. } = lobby;
    Ok(Gathered { secs: ns_to_secs(now_ns() - began), connect, present })
}

struct Coming {
    began_ns: u64,
    subscriptions: usize,
}

struct Lobby<'a, D: Driver> {
    inner: &'a mut D,
    roster: &'a Roster<'a>,
    target: &'a Target,
    coming: HashMap<u32, Coming>,
    connect: Histogram<u64>,
    present: u64,
    failure: Option<String>,
}

impl<D: Driver> Lobby<'_, D> {
    fn check_patience(&self, now: u64) -> Result<()> {
        let late = PATIENCE.as_nanos() as u64;
        if let Some((client, _)) = self.coming.iter().find(|(_, c)| c.began_ns + late < now) {
            bail!(
                "client {client} has had no CONNACK or SUBACK for {} s: is that an MQTT broker, and \
                 does it take so many connections? (--pending and --ramp slow the arrivals down)",
                PATIENCE.as_secs()
            );
        }
        Ok(())
    }
}

impl<D: Driver> Driver for Lobby<'_, D> {
    fn on_up(&mut self, net: &mut Net, client: u32, session_present: bool) {
        self.present += u64::from(session_present);
        let Some(coming) = self.coming.get_mut(&client) else { return };
        self.connect.saturating_record(now_ns() - coming.began_ns);
        let filters = (self.roster.filters)(client);
        for part in filters.chunks(FILTERS_PER_PACKET) {
            net.subscribe(client, part);
            coming.subscriptions += 1;
        }
        if filters.is_empty() {
            self.coming.remove(&client);
        }
        self.inner.on_up(net, client, session_present);
    }

    fn on_subscribed(&mut self, net: &mut Net, client: u32, refused: usize) {
        if refused > 0 {
            self.failure = Some(format!(
                "the broker refused {refused} subscriptions (is there an access rule for them?)"
            ));
        }
        if let Some(coming) = self.coming.get_mut(&client) {
            coming.subscriptions -= 1;
            if coming.subscriptions == 0 {
                self.coming.remove(&client);
            }
        }
        self.inner.on_subscribed(net, client, refused);
    }

    fn on_message(&mut self, net: &mut Net, client: u32, message: &Incoming<'_>) {
        self.inner.on_message(net, client, message);
    }

    fn on_settled(&mut self, net: &mut Net, client: u32, token: Token, code: ReasonCode) {
        self.inner.on_settled(net, client, token, code);
    }

    fn on_unsettled(&mut self, net: &mut Net, client: u32, token: Token) {
        self.inner.on_unsettled(net, client, token);
    }

    fn on_down(&mut self, net: &mut Net, client: u32, why: Down) {
        if self.coming.remove(&client).is_some() {
            let open = net.totals().up;
            self.failure.get_or_insert(match &why {
                Down::Connect(e) => explain_connect(e, self.target, open),
                other => other.to_string(),
            });
        } else {
            self.inner.on_down(net, client, why);
        }
    }
}
