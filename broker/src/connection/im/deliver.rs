//! Stored entries on their way to devices of this worker: live when it is their turn, by pages
//! when the device is behind (ruling 7).

use std::sync::Arc;

use hoopoe_codec::{QoS, Version};
use hoopoe_core::{Location, Publication, PublicationParts};
use hoopoe_im::User;
use hoopoe_im::device::{Gap, Live};
use hoopoe_im::entry::{Entry, EntryKind, VOID_BURNT, VOID_RECALLED};
use hoopoe_im::envelope::delivery;
use hoopoe_im::id::{ConvKey, ConvKind};
use hoopoe_im::overload::Shed;
use hoopoe_im::user::pace::Pace;
use smallvec::SmallVec;

use super::ImDevice;
use super::recall::left_of;
use crate::connection::Connection;
use crate::connection::deliver::{Copy, send_copy};
use crate::connection::message::{Frames, Message};
use crate::connection::output::SHARED_FROM_BYTES;
use crate::connection::session::{Origin, Outgoing};
use crate::connection::worker::Worker;
use crate::im::{ImRead, Page};
use crate::shard::ReadJob;

/// Entries per page.
const PAGE_ENTRIES: u64 = 128;

/// An entry as some of those who get it see it.
struct Form {
    version: Version,
    /// One of them.
    me: Arc<str>,
    /// They are devices of its sender.
    own: bool,
    publication: Arc<Publication>,
    /// The packets.
    frames: Frames,
}

/// The forms of one entry: by version and by who it is for. Groups have one for the sender's
/// devices and one for all others.
struct Forms {
    is_pair: bool,
    made: SmallVec<[Form; 2]>,
    spare: Vec<Frames>,
}

impl Forms {
    fn new(entry: &Entry, spare: Vec<Frames>) -> Forms {
        let is_pair = entry.conv.kind() == ConvKind::User;
        Forms { is_pair, made: SmallVec::new(), spare }
    }

    fn of(&mut self, entry: &Entry, me: &Arc<str>, version: Version) -> &mut Form {
        let own = *me == entry.from;
        let same = |form: &Form| {
            form.version == version && form.own == own && (!self.is_pair || form.me == *me)
        };
        let at = self.made.iter().position(same).unwrap_or_else(|| {
            let publication = Arc::new(delivery(entry, me, version));
            let mut frames = self.spare.pop().unwrap_or_default();
            frames.clear();
            self.made.push(Form { version, me: me.clone(), own, publication, frames });
            self.made.len() - 1
        });
        &mut self.made[at]
    }

    /// Room for the next entry's.
    fn into_spare(mut self) -> Vec<Frames> {
        self.spare.extend(self.made.into_iter().map(|form| form.frames));
        self.spare
    }
}

impl Worker {
    /// A committed entry for devices connected here.
    pub(super) fn im_live(&mut self, entry: &Arc<Entry>, big: bool, receivers: &[Location]) {
        let mut forms = Forms::new(entry, std::mem::take(&mut self.spare_frames));
        for location in receivers {
            if big || !self.im_live_at_once(*location, entry, &mut forms) {
                self.im_live_to(*location, entry, big, &mut forms);
            }
        }
        self.spare_frames = forms.into_spare();
    }

    /// What nearly every device gets, in one go: it is looked at, has no filters of its own, and
    /// nothing before the entry waits to be recorded. False for any other device.
    fn im_live_at_once(
        &mut self,
        location: Location,
        entry: &Arc<Entry>,
        forms: &mut Forms,
    ) -> bool {
        let now_ms = self.now_ms;
        let Worker { connections, turn, pool, counters, .. } = self;
        let connection = connections.get_mut(location.place());
        let Some(connection) = connection.filter(|c| c.location == location) else { return true };
        let full = connection.is_full();
        let Some(session) = connection.session() else { return true };
        let Some(im) = &mut session.im else { return true };
        let mut unusual = session.stored.as_ref().is_some_and(|stored| !stored.steps.is_empty());
        // By now it is void (ruling 23).
        unusual |= entry.expires_at_ms.is_some_and(|at| at <= now_ms);
        if unusual || im.step.is_background() || !im.filters.is_empty() || im.has_kept(entry) {
            return false;
        }
        let room = !full && session.backlog.is_empty() && session.window.room() > 0;
        let room = room && im.pages.is_empty();
        let own = im.is_own(entry, &session.key.client);
        let stream = match im.step.live(&entry.conv, entry.seq, room, own) {
            Live::Send { stream } => stream,
            Live::Nothing => {
                if room {
                    self.im_read_on(location);
                }
                return true;
            }
        };
        let (qos, origin) = (QoS::AtLeastOnce, Origin::Im { stream, seq: entry.seq, tag: 0 });
        let id = session.window.push(qos, origin);
        let form = forms.of(entry, &im.user.id, session.version);
        let mut message = Message::again(&form.publication, &mut form.frames, now_ms);
        let copy = Copy { qos, retain: false, dup: false, identifiers: &[] };
        if send_copy(connection, turn, pool, counters, &mut message, copy, id) {
            self.settle_skipped(location);
        }
        true
    }

    fn im_live_to(&mut self, location: Location, entry: &Arc<Entry>, big: bool, forms: &mut Forms) {
        if self.im_hold(location, entry) {
            return;
        }
        if big {
            if self.im_pass_over(location, entry) {
                return;
            }
            self.im_name_passed_of(location, Some(&entry.conv));
        }
        let Some(connection) = self.connection(location) else { return };
        let full = connection.is_full();
        let Some(session) = connection.session() else { return };
        let room = !full && session.backlog.is_empty() && session.window.room() > 0;
        let client = session.key.client.clone();
        let Some(im) = &mut session.im else { return };
        let room = room && im.pages.is_empty();
        match im.step.live(&entry.conv, entry.seq, room, im.is_own(entry, &client)) {
            Live::Send { stream } => self.im_send(location, stream, entry, forms),
            Live::Nothing => {
                if room {
                    self.im_read_on(location);
                }
            }
        }
    }

    /// If the entry recalls or burns a message: no body of it that waits here is sent.
    pub(super) fn im_forget_body(&mut self, location: Location, entry: &Entry) {
        let device = self.connection(location).and_then(Connection::session);
        if let Some(im) = device.and_then(|session| session.im.as_mut())
            && let Some(reason) = im.forget_body(entry)
        {
            self.im_void_steps(location, entry, reason);
        }
    }

    /// An entry of a big conversation: true when it is beyond the device's budget and passed. Who
    /// is mentioned gets it all the same.
    fn im_pass_over(&mut self, location: Location, entry: &Entry) -> bool {
        let (rate, now_ms) = (self.env.im.settings.big_rate, self.now_ms);
        let device = self.connection(location).and_then(Connection::session);
        let Some(session) = device else { return false };
        let client = session.key.client.clone();
        let Some(im) = &mut session.im else { return false };
        let mentioned = entry.at_all || entry.mentions.contains(&im.user.id);
        if mentioned || im.is_own(entry, &client) {
            return false;
        }
        let budget = im.budget.get_or_insert_with(|| Box::new(Pace::new(rate, now_ms)));
        if budget.take(rate, rate, now_ms) || !im.step.pass_over(&entry.conv, entry.seq) {
            return false;
        }
        self.turn.im_passed.push(location);
        true
    }

    /// Names what devices have passed within the last second.
    pub(in crate::connection) fn im_name_passed(&mut self) {
        if self.turn.im_passed.is_empty() || self.env.im.overload.sheds(Shed::Pokes) {
            return;
        }
        let mut locations = std::mem::take(&mut self.turn.im_passed);
        locations.sort_by_key(|location| location.to_bits());
        locations.dedup();
        for location in locations {
            self.im_name_passed_of(location, None);
        }
    }

    /// Names what a device has passed, of one conversation or of all.
    fn im_name_passed_of(&mut self, location: Location, conv: Option<&ConvKey>) {
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else { return };
        let gaps = im.step.take_passed(conv);
        self.im_gaps(location, gaps);
    }

    /// Sends one entry, for which there is room.
    fn im_send(&mut self, location: Location, stream: u32, entry: &Arc<Entry>, forms: &mut Forms) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let version = session.version;
        let Some(im) = &mut session.im else { return };
        let publication = forms.of(entry, &im.user.id, version).publication.clone();
        let (qos, identifiers) = im.terms(publication.topic(), QoS::AtLeastOnce);
        let recorded = qos == QoS::ExactlyOnce && session.stored.is_some();
        let known = session.stored.is_some() && im.has_kept(entry);
        let outgoing = Outgoing {
            publication,
            qos: if known { QoS::ExactlyOnce } else { qos },
            retain: false,
            identifiers,
            origin: im.origin(stream, entry.seq, recorded || known),
            dup: false,
            again: None,
            entry: Some(entry.clone()),
        };
        if recorded || known {
            return self.im_send_exactly(location, outgoing, entry);
        }
        let id = match qos {
            QoS::AtMostOnce => None,
            qos => session.window.push(qos, outgoing.origin),
        };
        match id {
            // Not before what waits for its exchange to be recorded.
            Some(id) => self.send_step(location, outgoing, id),
            None => self.send_outgoing(location, &outgoing, None),
        }
        if qos == QoS::AtMostOnce {
            // The cursor moves with the bytes, `recv` only by `cur` (ruling 28).
            self.im_acknowledged(location, stream, entry.seq, false);
        }
    }

    /// Sends one entry for which there is room, written for this device alone, as nearly all that
    /// is read goes. False when it takes more than writing it.
    fn im_send_now(&mut self, location: Location, stream: u32, entry: &Entry) -> bool {
        let now_ms = self.now_ms;
        let mut envelope = std::mem::take(&mut self.envelope);
        let written = self.connection(location).and_then(Connection::session).and_then(|session| {
            let im = session.im.as_ref()?;
            let expired = entry.expires_at_ms.is_some_and(|at| at <= now_ms);
            if expired || entry.payload.len() >= SHARED_FROM_BYTES || im.has_kept(entry) {
                return None;
            }
            envelope.delivery(entry, &im.user.id, session.version);
            let parts = envelope.parts(entry);
            let (qos, identifiers) = im.terms(parts.topic, parts.qos);
            (qos == parts.qos).then_some((parts, identifiers))
        });
        let origin = Origin::Im { stream, seq: entry.seq, tag: 0 };
        let sent = written.is_some_and(|(parts, identifiers)| {
            self.send_now(location, parts, &identifiers, origin)
        });
        self.envelope = envelope;
        sent
    }

    /// An entry that has expired on its way is sent as what it is now (ruling 23), at its seq.
    pub(in crate::connection) fn im_expired(
        &mut self,
        location: Location,
        outgoing: &Outgoing,
    ) -> Option<Outgoing> {
        let entry = outgoing.entry.as_ref()?;
        entry.expires_at_ms.filter(|at| *at <= self.now_ms)?;
        let now = Entry::clone(entry).as_of(self.now_ms);
        now.expires_at_ms.is_none().then_some(())?;
        let session = self.connection(location).and_then(Connection::session)?;
        let me = &session.im.as_ref()?.user.id;
        let publication = Arc::new(delivery(&now, me, session.version));
        Some(Outgoing { publication, entry: Some(Arc::new(now)), ..outgoing.clone() })
    }

    /// An entry is acknowledged, or counts as such.
    pub(in crate::connection) fn im_acknowledged(
        &mut self,
        location: Location,
        stream: u32,
        seq: u64,
        received: bool,
    ) {
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Some(im) = &mut session.im
        {
            im.step.acknowledged(stream, seq, received);
        }
        self.im_note_moved(location);
    }

    /// An entry that is larger than the client takes becomes a gap of one (ruling 23).
    pub(in crate::connection) fn im_skipped(&mut self, location: Location, stream: u32, seq: u64) {
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_ref()) else { return };
        if let Some(conv) = im.step.conversation(stream) {
            let gap = Gap { conv: conv.clone(), from: seq, to: seq };
            self.im_gaps(location, vec![gap]);
        }
    }

    /// Entries that a device asked for.
    pub(super) fn im_pages(&mut self, location: Location, pages: Vec<Page>) {
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else { return };
        if std::mem::take(&mut im.outdated) {
            im.step.read_again();
            return self.im_read_on(location);
        }
        for page in pages {
            self.im_page(location, page);
        }
        self.im_note_moved(location);
        self.im_settle_kept(location);
        self.im_read_on(location);
    }

    fn im_page(&mut self, location: Location, page: Page) {
        let Page { stream, from, through, mut entries } = page;
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let client = session.key.client.clone();
        let Some(im) = &mut session.im else { return };
        im.step.read(stream, through);
        // What retention has taken is named.
        let first = entries.first().map_or(through + 1, |entry| entry.seq);
        let conv = im.step.conversation(stream).cloned();
        let gap = conv.filter(|_| first > from).map(|conv| Gap { conv, from, to: first - 1 });
        if gap.is_some() {
            im.step.pass_lost(stream, from, first - 1);
        }
        entries.retain(|entry| {
            let own = is_own(&im.user, &client, entry);
            if own {
                im.step.pass(stream, entry.seq);
            }
            !own
        });
        im.pages.push(stream, entries);
        self.im_gaps(location, gap.into_iter().collect());
    }

    /// Sends what has been read, as far as there is room, and asks for more.
    pub(in crate::connection) fn im_read_on(&mut self, location: Location) {
        loop {
            let Some(connection) = self.connection(location) else { return };
            if connection.is_full() {
                return;
            }
            let Some(session) = connection.session() else { return };
            let room = session.backlog.is_empty() && session.window.room() > 0;
            let Some(im) = &mut session.im else { return };
            if im.pages.is_empty() {
                im.pages.release();
                break;
            }
            if !room {
                return;
            }
            let Some((stream, entry)) = im.pages.pop() else { return };
            if !self.im_send_now(location, stream, &entry) {
                let mut forms = Forms::new(&entry, Vec::new());
                self.im_send(location, stream, &Arc::new(entry), &mut forms);
            }
        }
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else { return };
        let reads = im.step.next_reads(PAGE_ENTRIES);
        if reads.is_empty() {
            return;
        }
        let user = im.user.id.clone();
        for read in &reads {
            self.im_name_passed_of(location, Some(&read.conv));
        }
        let job = ImRead::Entries { location, user, reads };
        self.turn.to_readers.push(ReadJob::Im(job));
    }

    /// A QoS 0 publication of the profile to one device.
    pub(in crate::connection) fn im_notice(
        &mut self,
        location: Location,
        topic: &str,
        payload: &[u8],
    ) {
        let parts = PublicationParts {
            topic,
            properties: &[],
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at_ms: None,
        };
        self.send_at_most_once(location, parts);
    }
}

/// True for an entry that this client of the user has sent.
fn is_own(user: &User, client: &str, entry: &Entry) -> bool {
    *entry.device == *client && entry.from == user.id
}

impl ImDevice {
    /// True for an entry that this very device has sent: it never gets it back (ruling 30).
    pub(super) fn is_own(&self, entry: &Entry, client: &str) -> bool {
        is_own(&self.user, client, entry)
    }

    /// A recall or a burning reaches what has been read and not sent, or is being read (ruling 24).
    /// Gives the reason.
    fn forget_body(&mut self, event: &Entry) -> Option<u8> {
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::ReplayRecalled) {
            return None;
        }
        let reason = match event.kind {
            EntryKind::Recall => VOID_RECALLED,
            EntryKind::Burn => VOID_BURNT,
            _ => return None,
        };
        self.outdated |= self.step.is_reading(&event.conv);
        for waiting in self.pages.iter_mut() {
            if let Some(left) = left_of(waiting, event, reason) {
                *waiting = left;
            }
        }
        Some(reason)
    }

    /// On which terms the device gets a topic of its inbox: `usual`, unless filters of its own
    /// cover the topic (ruling 28).
    pub(super) fn terms(&self, topic: &str, usual: QoS) -> (QoS, SmallVec<[u32; 1]>) {
        let mut identifiers = SmallVec::new();
        let mut qos = None;
        for own in self.filters.iter() {
            if hoopoe_codec::topic_matches(&own.filter, topic) {
                qos = qos.max(Some(own.options.qos));
                identifiers.extend((own.identifier != 0).then_some(own.identifier));
            }
        }
        (qos.unwrap_or(usual), identifiers)
    }
}
