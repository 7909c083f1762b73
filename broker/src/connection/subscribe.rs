//! SUBSCRIBE and UNSUBSCRIBE, and the retained messages that a new subscription is owed.
//!
//! A subscription is in the index before the next packet of its client is worked on; its SUBACK
//! waits for the commit, where there is one (ruling 3). Retained messages are scanned after that,
//! page by page, as fast as the client takes them (ruling 8).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hoopoe_bridge::SCANNED;
use hoopoe_codec::{
    AckProperties, Fault, Packet, PacketId, QoS, ReasonCode, RetainHandling, SharedFilter, SubAck,
    Subscribe, SubscribeOptions, Unsubscribe, check_filter, topic_matches,
};
use hoopoe_core::index::topic_hash;
use hoopoe_core::{Location, Publication, PublicationParts, Route, SessionId, Subscription};
use hoopoe_store::Command;
use hoopoe_store::command::{GroupCommand, Member, Publish, Receiver, ReplyTo, StoredSubscription};
use hoopoe_store::effect::StoredSession;
use smallvec::SmallVec;

use super::Connection;
use super::closing::{Cause, group_slot, leave_command};
use super::im::site_link_hears;
use super::queue::SCAN_TOKEN;
use super::session::{Answer, Origin, Outgoing, Scan};
use super::worker::Worker;
use crate::access::tenant::{is_in_a_space, spaced_filter};
use crate::access::{Action, LoginMethod};
use crate::im::sites::is_site_tree;
use crate::shard::{ReadJob, RetainedPage};

/// Retained messages per page.
const PAGE_MESSAGES: usize = 256;
/// Scans that may wait, each SUBSCRIBE asking for another. Beyond it those of one filter are made
/// once; that the client is not read instead would be wrong: it may have to acknowledge something
/// before there is room for what a scan finds.
const MOST_SCANS: usize = 64;
/// Entries of a shared group that one member may hold: enough to keep it busy, few enough that
/// the others get their share.
pub(super) const GROUP_WINDOW: u16 = 32;

/// What one filter of a SUBSCRIBE leads to.
struct Accepted<'a> {
    filter: &'a str,
    options: SubscribeOptions,
    shared: Option<SharedFilter<'a>>,
    existed: bool,
}

impl Worker {
    /// SUBSCRIBE.
    pub(super) fn subscribe(
        &mut self,
        location: Location,
        subscribe: &Subscribe<'_>,
    ) -> Result<(), Fault> {
        let identifier = subscribe.subscription_id.unwrap_or(0);
        // Announced before anything enters the index; what is not needed is given back below.
        let announced = subscribe.filters.len();
        self.env.retained.begin_scans(announced);
        let space = self.space(location);
        let kept: SmallVec<[Cow<'_, str>; 4]> =
            subscribe.filters.iter().map(|(filter, _)| spaced(space.as_deref(), filter)).collect();
        let mut codes: SmallVec<[ReasonCode; 8]> = SmallVec::new();
        let mut accepted: SmallVec<[Accepted<'_>; 4]> = SmallVec::new();
        let most = self.connection(location).map_or(0, |c| c.limits.max_subscriptions);
        for ((filter, options), kept) in subscribe.filters.iter().zip(&kept) {
            if codes.len() >= most {
                // More than a session may have: some of them are there twice.
                codes.push(ReasonCode::QuotaExceeded);
                continue;
            }
            match self.grant(location, (filter, kept), *options) {
                Ok(grant) => {
                    codes.push(granted(grant.options.qos));
                    self.route(location, &grant, identifier);
                    accepted.push(grant);
                }
                Err(Refused::Filter(code)) => codes.push(code),
                Err(Refused::Connection(fault)) => {
                    self.env.retained.end_scans(announced);
                    return Err(fault);
                }
            }
        }
        let number = self.env.retained.number();
        let scans = accepted.iter().filter(|a| owed_retained(a)).map(|grant| Scan {
            number,
            filter: grant.filter.into(),
            qos: grant.options.qos,
            identifier,
            after: None,
            reading: false,
            barriers: None,
        });
        let begun = self.begin_scans(location, scans);
        self.env.retained.end_scans(announced - begun);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let (epoch, stored) = (session.epoch, session.route.session());
        let shared = accepted.iter().filter(|a| a.shared.is_some()).count();
        let commits = shared + usize::from(stored.is_some() && !accepted.is_empty());
        // More filters than commits can be counted for are no more than the packet's filters.
        let commits = u8::try_from(commits).map_err(|_| Fault {
            reason: ReasonCode::QuotaExceeded,
            what: "SUBSCRIBE: too many shared subscriptions in one packet",
        })?;
        self.enter_rooms_after(location, subscribe.id);
        let token = self.owe(location, commits, 0, Answer::SubAck(subscribe.id, codes));
        let reply = ReplyTo { location, token };
        if let (Some(session), false) = (stored, accepted.is_empty()) {
            let filters = accepted.iter().map(|a| StoredSubscription {
                filter: a.filter.into(),
                options: a.options,
                identifier,
            });
            let filters = filters.collect();
            self.command(session.slot(), Command::Subscribe { session, epoch, filters, reply });
        }
        for grant in &accepted {
            self.join_group(location, grant, identifier, reply);
        }
        Ok(())
    }

    /// Puts scans behind those that wait; gives how many more there are now.
    fn begin_scans(&mut self, location: Location, scans: impl Iterator<Item = Scan>) -> usize {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return 0;
        };
        let before = session.scans.len();
        for scan in scans {
            // The first may have begun.
            let made = session.scans.if_made().into_iter();
            let mut waiting = made.flatten().skip(MOST_SCANS);
            match waiting.find(|waiting| waiting.filter == scan.filter) {
                Some(waiting) => *waiting = scan,
                None => session.scans.push_back(scan),
            }
        }
        session.scans.len() - before
    }

    /// Whether the client may have the subscription, and with which QoS.
    fn grant<'a>(
        &mut self,
        location: Location,
        (filter, kept): (&str, &'a str),
        options: SubscribeOptions,
    ) -> Result<Accepted<'a>, Refused> {
        let (env, access) = (self.env.clone(), self.env.access.clone());
        let refuse = |code| Err(Refused::Filter(code));
        let Some(connection) = self.connection(location) else {
            return refuse(ReasonCode::UnspecifiedError);
        };
        let limits = connection.limits.clone();
        if check_filter(filter).is_err()
            || filter.len() > limits.max_topic_bytes
            || filter.bytes().filter(|&b| b == b'/').count() >= limits.max_topic_levels
        {
            return refuse(ReasonCode::TopicFilterInvalid);
        }
        let shared = match SharedFilter::parse(filter) {
            None => None,
            Some(Ok(shared)) => Some(shared),
            Some(Err(_)) => return refuse(ReasonCode::TopicFilterInvalid),
        };
        if shared.is_some() && options.no_local {
            return Err(Refused::Connection(Fault {
                reason: ReasonCode::ProtocolError,
                what: "SUBSCRIBE: no local on a shared subscription [MQTT-3.8.3-4]",
            }));
        }
        if shared.is_some() && !limits.shared_available {
            return refuse(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let bare = shared.as_ref().map_or(filter, |shared| shared.filter);
        if is_in_a_space(bare) {
            return refuse(ReasonCode::NotAuthorized);
        }
        if !limits.wildcard_available && bare.contains(['+', '#']) {
            return refuse(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        let options = SubscribeOptions { qos: options.qos.min(limits.max_qos), ..options };
        let reserved = hoopoe_im::is_reserved(bare);
        let options = match (reserved, &shared) {
            (false, _) => options,
            // Ruling 10.
            (true, Some(_)) => return refuse(ReasonCode::NotAuthorized),
            (true, None) => match self.im_grant(location, filter, options) {
                Ok(qos) => SubscribeOptions { qos, ..options },
                Err(code) => return refuse(code),
            },
        };
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return refuse(ReasonCode::UnspecifiedError);
        };
        // Nothing of its own comes back to a bridge, and RETAIN passes as it is.
        let own_kept = session.via.is_empty() || shared.is_some();
        let options = SubscribeOptions {
            no_local: options.no_local || !own_kept,
            retain_as_published: options.retain_as_published || !own_kept,
            ..options
        };
        if is_site_tree(bare)
            && (shared.is_some() || !site_link_hears(&env, &session.identity, bare))
        {
            return refuse(ReasonCode::NotAuthorized);
        }
        let existed = session.subscriptions.has(kept);
        if !existed && session.subscriptions.len() >= limits.max_subscriptions {
            return refuse(ReasonCode::QuotaExceeded);
        }
        if !reserved
            && !is_site_tree(bare)
            && !access.allows(&session.identity, &session.key.client, Action::Subscribe, bare)
        {
            return refuse(ReasonCode::NotAuthorized);
        }
        // Below the tenant's space, where the client's filter is good so is this one.
        let shared = SharedFilter::parse(kept).and_then(Result::ok);
        Ok(Accepted { filter: kept, options, shared, existed })
    }

    fn space(&mut self, location: Location) -> Option<Arc<str>> {
        let session = self.connection(location).and_then(Connection::session)?;
        session.space.clone()
    }

    /// Puts a granted subscription into the session and, unless shared, into the index.
    fn route(&mut self, location: Location, grant: &Accepted<'_>, identifier: u32) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        session.subscriptions.put(grant.filter);
        if hoopoe_im::is_reserved(grant.filter) {
            self.im_subscribed(location, grant.filter, grant.options, identifier);
            return;
        }
        let route = session.route.clone();
        if grant.shared.is_none() {
            let subscriber = route.subscriber;
            let subscription = Subscription { route, options: grant.options, identifier };
            self.env.fabric.index.insert(grant.filter, subscriber, subscription);
        }
    }

    fn join_group(
        &mut self,
        location: Location,
        grant: &Accepted<'_>,
        identifier: u32,
        reply: ReplyTo,
    ) {
        let Some(shared) = &grant.shared else { return };
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let member = Member {
            subscriber: session.route.subscriber,
            session: session.route.session(),
            location,
            options: grant.options,
            identifier,
            window: GROUP_WINDOW,
        };
        let join = GroupCommand::Join {
            share: shared.group.into(),
            filter: shared.filter.into(),
            member,
            reply: Some(reply),
        };
        let slot = group_slot(shared.group, shared.filter);
        self.command(slot, Command::Group(Box::new(join)));
    }

    /// SUBACK, then the retained messages.
    pub(super) fn suback(
        &mut self,
        location: Location,
        id: PacketId,
        codes: SmallVec<[ReasonCode; 8]>,
        commit: ReasonCode,
    ) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let version = session.version;
        if commit.is_error() {
            // What is not on disk is not granted, and the index cannot take it back quietly.
            self.end_session(location, Cause::Fault(ReasonCode::ServerUnavailable));
            return;
        }
        let suback = SubAck { id, codes, properties: AckProperties::NONE };
        self.send_packet(location, version, &Packet::SubAck(suback));
        self.enter_rooms(location, Some(id));
        self.scan_on(location);
    }

    /// UNSUBSCRIBE.
    pub(super) fn unsubscribe(
        &mut self,
        location: Location,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<(), Fault> {
        let space = self.space(location);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let mut codes: SmallVec<[ReasonCode; 8]> = SmallVec::new();
        let mut ended: Vec<Arc<str>> = Vec::new();
        let mut dropped_scans = 0;
        for filter in &unsubscribe.filters {
            let filter = &*spaced(space.as_deref(), filter);
            if check_filter(filter).is_err() {
                codes.push(ReasonCode::TopicFilterInvalid);
            } else if session.subscriptions.take(filter) {
                codes.push(ReasonCode::Success);
                // A scan under way ends with its page.
                let before = session.scans.len();
                if let Some(scans) = session.scans.if_made() {
                    scans.retain(|scan| scan.reading || *scan.filter != *filter);
                }
                dropped_scans += before - session.scans.len();
                ended.push(filter.into());
            } else {
                codes.push(ReasonCode::NoSubscriptionExisted);
            }
        }
        let (subscriber, stored) = (session.route.subscriber, session.route.session());
        let epoch = session.epoch;
        self.env.retained.end_scans(dropped_scans);
        let shared = ended.iter().filter(|filter| filter.starts_with("$share/"));
        let shared: Vec<Arc<str>> = shared.cloned().collect();
        let stores = stored.is_some() && !ended.is_empty();
        let commits = u8::try_from(shared.len() + usize::from(stores)).map_err(|_| Fault {
            reason: ReasonCode::QuotaExceeded,
            what: "UNSUBSCRIBE: too many shared subscriptions in one packet",
        })?;
        let answer = Answer::UnsubAck(unsubscribe.id, codes, shared.clone());
        let token = self.owe(location, commits, 0, answer);
        let reply = ReplyTo { location, token };
        // [MQTT-3.10.4-2]: from UNSUBACK on nothing new is added for them.
        for filter in &shared {
            if let Some((slot, leave)) = leave_command(filter, subscriber, false, Some(reply)) {
                self.command(slot, Command::Group(Box::new(leave)));
            }
        }
        for filter in ended.iter().filter(|filter| hoopoe_im::is_reserved(filter)) {
            self.im_unsubscribed(location, filter);
        }
        for filter in ended.iter().filter(|filter| !filter.starts_with("$share/")) {
            self.env.fabric.index.remove(filter, subscriber);
        }
        if let (Some(session), true) = (stored, stores) {
            self.command(
                session.slot(),
                Command::Unsubscribe { session, epoch, filters: ended, reply },
            );
        }
        Ok(())
    }

    /// UNSUBACK.
    pub(super) fn unsuback(
        &mut self,
        location: Location,
        id: PacketId,
        codes: SmallVec<[ReasonCode; 8]>,
        commit: ReasonCode,
    ) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let version = session.version;
        if commit.is_error() {
            self.end_session(location, Cause::Fault(ReasonCode::ServerUnavailable));
            return;
        }
        let unsuback = SubAck { id, codes, properties: AckProperties::NONE };
        self.send_packet(location, version, &Packet::UnsubAck(unsuback));
    }

    /// Asks for the next page of retained messages, when the client has taken the last one.
    pub(super) fn scan_on(&mut self, location: Location) {
        while let Some(page) = self.begin_page(location) {
            self.send_page(location, page);
        }
    }

    /// Asks for the next page, if it is time; gives it at once where nothing has to be read.
    fn begin_page(&mut self, location: Location) -> Option<RetainedPage> {
        let shards = self.turn.to_shards.len();
        let retained_under_way = self.env.retained.under_way.load(Ordering::Acquire) > 0;
        // Asked in this order: what is not under way any more has been counted.
        let nothing_stored = self.env.floors.counts().retained == 0;
        let connection = self.connection(location)?;
        let max_bytes = connection.limits.write_buffer_bytes / 2;
        if connection.output_len() > max_bytes {
            return None;
        }
        let session = connection.session()?;
        if session.backlog.len() >= PAGE_MESSAGES {
            return None;
        }
        let scan = session.scans.if_made()?.front_mut().filter(|scan| !scan.reading)?;
        scan.reading = true;
        if scan.barriers.is_none() && retained_under_way {
            // What was published before this subscription must be found (ruling 8).
            scan.barriers = Some(shards);
            let reply = ReplyTo { location, token: SCAN_TOKEN };
            for batch in &mut self.turn.to_shards {
                batch.push(Command::Barrier { reply }.into());
            }
            return None;
        }
        let (filter, after) = (scan.filter.clone(), scan.after.clone());
        if filter.starts_with("$SYS") {
            let messages = self.env.system.matching(&filter);
            let messages = messages.into_iter().map(|publication| (0, publication)).collect();
            return Some(RetainedPage { messages, next: None });
        }
        if nothing_stored && !retained_under_way {
            return Some(RetainedPage::default());
        }
        let limit = PAGE_MESSAGES;
        self.turn.to_readers.push(ReadJob::Retained { location, filter, after, limit, max_bytes });
        None
    }

    /// A shard has committed everything that came before a scan.
    pub(super) fn scan_ordered(&mut self, location: Location) {
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Some(scan) = session.scans.if_made().and_then(VecDeque::front_mut)
            && let Some(barriers) = &mut scan.barriers
        {
            *barriers = barriers.saturating_sub(1);
            if *barriers == 0 {
                scan.reading = false;
                self.scan_on(location);
            }
        }
    }

    /// A page of retained messages has been read.
    pub(super) fn retained_page(&mut self, location: Location, page: RetainedPage) {
        self.send_page(location, page);
        self.scan_on(location);
    }

    fn send_page(&mut self, location: Location, page: RetainedPage) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let scan = session.scans.if_made().and_then(VecDeque::front_mut);
        let Some(scan) = scan.filter(|scan| scan.reading) else { return };
        scan.reading = false;
        scan.after = page.next.clone();
        let (filter, granted, identifier) = (scan.filter.clone(), scan.qos, scan.identifier);
        let number = scan.number;
        let wanted = session.subscriptions.has(&filter);
        let over = page.next.is_none() || !wanted;
        if over {
            session.scans.pop_front();
            if session.scans.is_empty() {
                // Few clients ever subscribe again.
                session.scans.release();
            }
        }
        for (_, publication) in page.messages.into_iter().filter(|_| wanted) {
            if !self.env.retained.is_later(topic_hash(publication.topic()), number) {
                self.send_retained(location, &filter, publication, granted, identifier);
            }
        }
        self.env.retained.end_scans(usize::from(over));
        if over {
            self.tell_link_scanned(location, &filter);
        }
    }

    /// A link of this broker hears when all that is retained under a filter stands in its queue: from
    /// then on it need not ask for it again, whatever becomes of its connection.
    fn tell_link_scanned(&mut self, location: Location, filter: &str) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        if session.identity.method != LoginMethod::Bridge {
            return;
        }
        let Some(stored) = session.route.session() else { return };
        let parts = PublicationParts {
            topic: SCANNED,
            properties: &[],
            payload: filter.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: None,
        };
        self.queue_for(
            stored,
            Arc::new(parts.to_publication()),
            (parts.qos, false),
            SmallVec::new(),
        );
    }

    /// Puts a publication into the queue of one stored session.
    fn queue_for(
        &mut self,
        session: SessionId,
        publication: Arc<Publication>,
        (qos, retain): (QoS, bool),
        identifiers: SmallVec<[u32; 1]>,
    ) {
        let publish = Publish {
            publication,
            receivers: vec![Receiver { session, qos, retain, identifiers }],
            groups: Vec::new(),
            retain: false,
            marker: None,
            outbox: None,
            reply: None,
        };
        self.command(session.slot(), Command::Publish(Box::new(publish)));
    }

    fn send_retained(
        &mut self,
        location: Location,
        filter: &str,
        publication: Arc<Publication>,
        granted: QoS,
        identifier: u32,
    ) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let topic = publication.topic();
        if !topic_matches(filter, topic) {
            return;
        }
        let qos = publication.qos.min(granted);
        let mut identifiers = SmallVec::new();
        identifiers.extend((identifier != 0).then_some(identifier));
        if let (Some(stored), true) = (session.route.session(), qos > QoS::AtMostOnce) {
            // To a stored session it goes by its queue, so that it survives like any other.
            self.queue_for(stored, publication, (qos, true), identifiers);
            return;
        }
        let outgoing = Outgoing {
            publication,
            qos,
            retain: true,
            identifiers,
            origin: Origin::Transient,
            dup: false,
            again: None,
            entry: None,
        };
        self.send_or_wait(location, outgoing);
    }
}

enum Refused {
    Filter(ReasonCode),
    Connection(Fault),
}

/// A client's filter as it is kept: below the space of its tenant.
fn spaced<'a>(space: Option<&str>, filter: &'a str) -> Cow<'a, str> {
    space.map_or(Cow::Borrowed(filter), |space| Cow::Owned(spaced_filter(space, filter)))
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

/// Retain handling ([MQTT-3.3.1-9] to [MQTT-3.3.1-11]); never for shared subscriptions.
fn owed_retained(grant: &Accepted<'_>) -> bool {
    grant.shared.is_none()
        && !hoopoe_im::is_reserved(grant.filter)
        && match grant.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !grant.existed,
            RetainHandling::DoNotSend => false,
        }
}

/// The shared groups that a stored session is a member of.
pub(super) fn memberships(
    env: &super::Env,
    stored: &StoredSession,
    route: &Route,
    location: Location,
) -> Vec<(SessionId, Member)> {
    let memberships = stored.subscriptions.iter().filter_map(|subscription| {
        let group = env.groups.get(&*subscription.filter)?;
        let member = Member {
            subscriber: route.subscriber,
            session: route.session(),
            location,
            options: subscription.options,
            identifier: subscription.identifier,
            window: GROUP_WINDOW,
        };
        Some((*group, member))
    });
    memberships.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_codes_are_the_standards() {
        let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        assert_eq!(all.map(|qos| granted(qos) as u8), [0, 1, 2]);
    }
}
