//! A device comes and goes: its inbox, its list, its cursors.

use hoopoe_core::Location;
use hoopoe_im::User;
use hoopoe_im::command::{Command, Device as DeviceFacts, DeviceMove, Progress};
use hoopoe_im::device::{Gap, Start};
use hoopoe_im::id::{ConvKey, conv_topic, inbox_topic, left_topic};
use hoopoe_im::service::sync::Login;

use super::{ImDevice, is_im_user};
use crate::connection::Connection;
use crate::connection::closing::Cause;
use crate::connection::room::ENTRANCE_TOKEN;
use crate::connection::session::Session;
use crate::connection::worker::Worker;
use crate::im::ImMail;

/// A connection that has said nothing for longer is silent.
const SILENT_SECS: u64 = 5;

impl Worker {
    /// A session has a connection: if it is a device of an IM user, its inbox opens.
    pub(in crate::connection) fn im_attach(
        &mut self,
        location: Location,
        kept: bool,
        heads_only: bool,
    ) {
        let env = self.env.clone();
        let Some(connection) = self.connection(location) else { return };
        let offers_im = connection.listener.im;
        let loopback = connection.peer.ip().is_loopback();
        let Some(session) = connection.session() else { return };
        if !is_im_user(&session.identity, &session.key.client, offers_im) {
            return;
        }
        let user = User { tenant: session.key.tenant.clone(), id: session.key.user.clone() };
        let topic = inbox_topic(&user.tenant, &user.id);
        env.im.reach.insert(&topic, location.to_bits(), location);
        let stored = session.route.session().is_some();
        let client = session.key.client.clone();
        session.im = Some(Box::new(ImDevice::new(user.clone())));
        let slot = user.slot();
        let address_class = if loopback { "loopback" } else { "network" };
        let facts = DeviceFacts { user, client, location, address_class, stored, kept, heads_only };
        self.command(slot, Command::Connected(Box::new(facts)));
    }

    /// Filters that a kept session brings along.
    pub(in crate::connection) fn im_restore_filters(
        &mut self,
        location: Location,
        filters: Vec<(Box<str>, hoopoe_codec::SubscribeOptions, u32)>,
    ) {
        for (filter, options, identifier) in filters {
            self.im_subscribed(location, &filter, options, identifier);
        }
        self.enter_rooms(location, None);
    }

    /// A session's connection ends: nothing is to reach it, what it has acknowledged is told.
    pub(in crate::connection) fn im_detach(&mut self, location: Location, session: &mut Session) {
        self.leave_rooms(session);
        let Some(mut im) = session.im.take() else { return };
        let env = self.env.clone();
        let bits = location.to_bits();
        env.im.reach.remove(&inbox_topic(&im.user.tenant, &im.user.id), bits);
        for conv in im.step.listens_to() {
            env.im.reach.remove(&conv_topic(conv), bits);
            env.im.reach.remove(&left_topic(conv), bits);
        }
        let stored = session.route.session().is_some();
        let client = session.key.client.clone();
        let slot = im.user.slot();
        // Said is said, also by who left before the list was read.
        for (slot, command, asker) in std::mem::take(&mut im.unsaid) {
            self.im_judge(slot, command, asker);
        }
        if let Some(progress) = progress(&mut im, &client, stored, false) {
            self.command(slot, progress);
        }
        let facts = DeviceFacts {
            user: im.user,
            client,
            location,
            address_class: "",
            stored,
            kept: false,
            heads_only: false,
        };
        self.command(slot, Command::Disconnected(Box::new(facts)));
    }

    /// The connection is taken over. When nothing was heard of it for a while this is no loop of
    /// take-overs (ruling 36).
    pub(in crate::connection) fn im_note_silence(&mut self, location: Location) {
        let now_secs = self.now_secs;
        let Some(connection) = self.connection(location) else { return };
        let is_silent = connection.heard_secs + SILENT_SECS < now_secs;
        let Some(session) = connection.session().filter(|_| is_silent) else { return };
        let client = session.key.client.clone();
        let Some(user) = session.im.as_ref().map(|im| im.user.clone()) else { return };
        self.command(user.slot(), Command::WasSilent { user, client });
    }

    /// Cursors that have moved within the last second are told to the users' shards.
    pub(in crate::connection) fn im_report(&mut self) {
        for location in std::mem::take(&mut self.turn.im_moved) {
            self.im_report_one(location);
        }
    }

    /// Tells one device's cursors.
    pub(super) fn im_report_one(&mut self, location: Location) {
        self.im_settle_kept(location);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let stored = session.route.session().is_some();
        let client = session.key.client.clone();
        let Some(im) = &mut session.im else { return };
        im.moved = false;
        let slot = im.user.slot();
        let ended = im.exchanges.take_ended();
        if let Some(progress) = progress(im, &client, stored, !ended.is_empty()) {
            self.command(slot, progress);
        }
        if !ended.is_empty() {
            self.im_forget_exchanges(location, ended);
        }
    }

    /// A device's cursor has moved: it is told within a second.
    pub(in crate::connection) fn im_note_moved(&mut self, location: Location) {
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Some(im) = &mut session.im
            && !std::mem::replace(&mut im.moved, true)
        {
            self.turn.im_moved.push(location);
        }
    }

    /// A letter about the profile.
    pub(in crate::connection) fn im_letter(&mut self, mail: ImMail) {
        match mail {
            ImMail::Answer { reply, answer } if reply.token == ENTRANCE_TOKEN => {
                self.home_has_judged(reply.location, answer);
            }
            ImMail::Answer { reply, answer } => self.im_answered(reply, answer),
            ImMail::Found { reply, found } => self.im_found(reply, found),
            ImMail::Login { location, login } => self.im_login(location, login.map(|login| *login)),
            ImMail::Entry { entry, big, receivers } => self.im_live(&entry, big, &receivers),
            // It has done its work before the letters of the turn were opened.
            ImMail::Forget { .. } => {}
            ImMail::Left { receivers, conv } => {
                for location in receivers.iter() {
                    self.im_left(*location, &conv);
                }
            }
            ImMail::Entries { location, pages: Some(pages) } => self.im_pages(location, pages),
            ImMail::Entries { location, pages: None } => {
                let reason = hoopoe_codec::ReasonCode::ServerUnavailable;
                self.end_session(location, Cause::Fault(reason));
            }
            ImMail::Listed { receivers, start } => {
                for location in receivers.iter() {
                    self.im_listed(*location, &start);
                }
            }
            ImMail::Skip { receivers, conv, through } => {
                for location in receivers.iter() {
                    self.im_skip(*location, &conv, through);
                }
            }
            ImMail::Kick { receivers, client, reason, notice } => {
                for location in receivers.iter() {
                    self.im_kick(*location, client.as_deref(), reason, notice.as_deref());
                }
            }
        }
    }

    /// The device's conversations: it is told where they stand, then delivery begins.
    fn im_login(&mut self, location: Location, login: Option<Login>) {
        let replay_max = self.env.im.settings.replay_max;
        let Some(login) = login else {
            let reason = hoopoe_codec::ReasonCode::ServerUnavailable;
            self.end_session(location, Cause::Fault(reason));
            return;
        };
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else {
            // Gone meanwhile: what the reader has entered for it is taken out.
            for conv in login.starts.listens_to() {
                self.env.im.reach.remove(&conv_topic(conv), location.to_bits());
                self.env.im.reach.remove(&left_topic(conv), location.to_bits());
            }
            return;
        };
        im.note_listed(&login.starts);
        let gaps = im.step.load(login.starts, replay_max);
        let unsaid = std::mem::take(&mut im.unsaid);
        self.im_notice(location, "im/me/sys/hello", &login.hello.body());
        self.hear_rooms(location);
        self.im_gaps(location, gaps);
        self.im_settle_kept(location);
        self.im_background_again(location);
        self.im_note_moved(location);
        for (slot, command, asker) in unsaid {
            self.im_judge(slot, command, asker);
        }
        self.im_read_on(location);
    }

    fn im_listed(&mut self, location: Location, start: &Start) {
        let replay_max = self.env.im.settings.replay_max;
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else {
            // Gone before its join was committed: the shard has entered it as a listener.
            self.env.im.reach.remove(&conv_topic(&start.conv), location.to_bits());
            return;
        };
        let gap = im.step.listed(start.clone(), replay_max);
        self.im_gaps(location, gap.into_iter().collect());
        self.im_read_on(location);
    }

    fn im_left(&mut self, location: Location, conv: &ConvKey) {
        let device = self.connection(location).and_then(Connection::session);
        if device.is_none_or(|session| session.im.is_none()) {
            self.env.im.reach.remove(&left_topic(conv), location.to_bits());
        }
    }

    fn im_skip(&mut self, location: Location, conv: &ConvKey, through: u64) {
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else { return };
        im.step.skip(conv, through);
        im.pages.retain(|entry| entry.conv != *conv || entry.seq > through);
        self.im_settle_kept(location);
        self.im_note_moved(location);
    }

    fn im_kick(
        &mut self,
        location: Location,
        client: Option<&str>,
        reason: hoopoe_codec::ReasonCode,
        notice: Option<&str>,
    ) {
        let session = self.connection(location).and_then(Connection::session);
        let meant = session
            .is_some_and(|session| client.is_none_or(|client| *session.key.client == *client));
        if meant {
            if let Some(topic) = notice {
                self.im_notice(location, topic, b"");
            }
            self.end_session(location, Cause::Fault(reason));
        }
    }

    /// Names what a device will not be sent.
    pub(super) fn im_gaps(&mut self, location: Location, gaps: Vec<Gap>) {
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_ref()) else { return };
        let me = im.user.id.clone();
        for Gap { conv, from, to } in gaps {
            let topic = format!("im/me/sys/gap/{}/{from}/{to}", conv.wire(&me));
            self.im_notice(location, &topic, b"");
        }
    }
}

/// What has moved. `at_once`: it is written although nothing may have, with what follows.
fn progress(
    im: &mut ImDevice,
    client: &std::sync::Arc<str>,
    stored: bool,
    at_once: bool,
) -> Option<Command> {
    let moves = im.step.take_moves().into_iter();
    let moves: Vec<DeviceMove> =
        moves.map(|(conv, cursor, recv)| DeviceMove { conv, cursor, recv }).collect();
    let (user, client) = (im.user.clone(), client.clone());
    (!moves.is_empty())
        .then(|| Command::Progress(Box::new(Progress { user, client, stored, moves, at_once })))
}
