//! What a device says of itself: what its user shows (`im/me/st/{show}`), and whether the app is
//! looked at (`im/me/bg`, `im/me/fg`).
//!
//! Deliberately not here: who is told of it (`hoopoe_im::presence`), what is held back meanwhile
//! (`hoopoe_im::device`).

use hoopoe_codec::{Fault, ReasonCode};
use hoopoe_core::Location;
use hoopoe_im::device::{Arrival, Device, Gap, Verdict};
use hoopoe_im::entry::Entry;
use hoopoe_im::overload::Shed;
use hoopoe_im::presence::{SetShow, Show, StatusText};
use hoopoe_im::refusal::Refusal;
use hoopoe_im::{Answer as Outcome, Asker, Command, User};

use super::ImDevice;
use super::publish::ImOwed;
use crate::connection::Connection;
use crate::connection::session::Answer;
use crate::connection::worker::Worker;

/// What a device's step says: gaps to be told, and an answer.
struct Held<T> {
    gaps: Vec<Gap>,
    answer: T,
}

impl From<Vec<Gap>> for Held<()> {
    fn from(gaps: Vec<Gap>) -> Held<()> {
        Held { gaps, answer: () }
    }
}

impl Worker {
    /// `im/me/st/{show}`, with a free text as payload.
    pub(super) fn im_set_show(
        &mut self,
        location: Location,
        user: User,
        show: &str,
        text: &[u8],
        answer: Answer,
    ) -> Result<(), Fault> {
        let (show, text) = match (Show::parse(show), StatusText::parse(text)) {
            (Ok(show), Ok(text)) => (show, text),
            (Err(bad), _) => {
                let mut refusal = Refusal::bad_request(format!("im/me/st/{{show}}: {bad}"));
                refusal.code = ReasonCode::TopicNameInvalid;
                return self.im_refuse(location, answer, None, refusal);
            }
            (_, Err(bad)) => {
                let refusal = Refusal::bad_request(format!("im/me/st/{show}: {bad}"));
                return self.im_refuse(location, answer, None, refusal);
            }
        };
        let slot = user.slot();
        let asker = self.im_owe(location, answer, ImOwed::default(), 0);
        self.command(slot, Command::SetShow(Box::new(SetShow { user, show, text, asker })));
        Ok(())
    }

    /// `im/me/bg` or `im/me/fg` (ruling 35).
    pub(super) fn im_attention(
        &mut self,
        location: Location,
        user: User,
        background: bool,
        answer: Answer,
    ) -> Result<(), Fault> {
        let asker = self.im_owe(location, answer, ImOwed::default(), 0);
        if let Asker::Connection(reply) = asker {
            self.im_answered(reply, Outcome::Done);
        }
        // What was acknowledged before is told before: nobody is pushed to for it.
        self.im_report_one(location);
        let slot = user.slot();
        self.command(slot, Command::Attention { user, location, background });
        if background {
            self.im_background(location);
            return Ok(());
        }
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Some(im) = &mut session.im
        {
            im.step.foreground();
        }
        self.im_read_on(location);
        Ok(())
    }

    /// The device is in the background: groups and channels stop, what of them waits is named.
    fn im_background(&mut self, location: Location) {
        let now_ms = self.now_ms;
        self.im_with_device(location, |step| step.background(now_ms).into())
    }

    /// The device's list has arrived: if it is in the background, that holds for it too.
    pub(super) fn im_background_again(&mut self, location: Location) {
        let device = self.connection(location).and_then(Connection::session);
        let im = device.and_then(|session| session.im.as_ref());
        if im.is_some_and(|im| im.step.is_background()) {
            self.im_background(location);
        }
    }

    /// A live entry comes to a device: true if it is held back.
    pub(super) fn im_hold(&mut self, location: Location, entry: &Entry) -> bool {
        let now_ms = self.now_ms;
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return false;
        };
        let client = session.key.client.clone();
        let Some(im) = &session.im else { return false };
        if !im.step.is_background() || im.is_own(entry, &client) {
            return false;
        }
        let mentioned = entry.at_all || entry.mentions.contains(&im.user.id);
        self.im_with_device(location, |step| {
            let (gap, held) = match step.hold(now_ms, &entry.conv, entry.seq, mentioned) {
                Verdict::Hold(gap) => (gap, true),
                Verdict::Send(gap) => (gap, false),
            };
            Held { gaps: gap.into_iter().collect(), answer: held }
        })
    }

    /// Names what devices in the background have been held back for an interval.
    pub(in crate::connection) fn im_pokes(&mut self) {
        let now_ms = self.now_ms;
        let due = self.turn.im_pokes.first().is_some_and(|(at, _)| *at <= now_ms);
        if !due || self.env.im.overload.sheds(Shed::Pokes) {
            return;
        }
        while let Some((_, bits)) = self.turn.im_pokes.first().filter(|(at, _)| *at <= now_ms) {
            let location = Location::from_bits(*bits);
            self.turn.im_pokes.pop_first();
            self.im_with_device(location, |step| step.poke(now_ms).into());
        }
    }

    /// Asks a device's step, tells the gaps it gives, and looks again when the next is due.
    fn im_with_device<T: Default>(
        &mut self,
        location: Location,
        ask: impl FnOnce(&mut Device) -> Held<T>,
    ) -> T {
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else {
            return T::default();
        };
        let before = im.step.poke_timeout();
        let Held { gaps, answer } = ask(&mut im.step);
        let after = im.step.poke_timeout();
        if let Some(at) = after.filter(|_| after != before) {
            self.turn.im_pokes.insert((at, location.to_bits()));
        }
        if !gaps.is_empty() {
            self.im_gaps(location, gaps);
            self.im_note_moved(location);
        }
        answer
    }
}

impl ImDevice {
    /// Whether a plain publication of the broker's reaches the device now (ruling 35).
    pub(in crate::connection) fn takes(&self, topic: &str) -> bool {
        !self.step.is_background() || self.step.passes(Arrival::of_notice(topic))
    }
}
