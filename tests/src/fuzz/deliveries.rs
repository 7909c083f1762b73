//! Judges a message that the broker delivers: that it was published and is unchanged, that a
//! subscription explains it, and that it comes in its order, once, and within the window.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use hoopoe_codec::{Publish, QoS, RetainHandling, Version};

use super::answers::{Request, Verdict};
use super::conversation::Conversation;
use super::ledger::{self, Flight, Ledger, Publication, Subscribed};
use super::limits::Limits;

/// A queue of so many messages is never full within a run.
const DROPPING_BELOW: u32 = 10_000;

/// How the user property begins that messages of a bridge of 3.1.1 get.
const VIA: &[u8] = b"\x26\0\x0Ahoopoe-via";

impl Conversation {
    /// A message has come.
    pub(super) fn delivery(
        &mut self,
        publish: &Publish<'_>,
        ledger: &mut Ledger,
    ) -> Verdict<Request> {
        let topic = self.delivered_topic(publish)?;
        let name = ledger::message(&topic, publish.payload);
        let shared = self
            .session
            .borrow()
            .subscriptions
            .iter()
            .any(|subscribed| subscribed.is_shared() && subscribed.matches(&topic));
        let request = self.take_off(publish, name, shared)?;
        ledger.deliveries += 1;
        if Limits::is_foreign(&topic) {
            return Ok(request);
        }
        let (publications, subscribed) = {
            let session = self.session.borrow();
            let found = session.subscriptions.iter().filter(|s| s.matches(&topic));
            (ledger.find(name), found.cloned().collect::<Vec<_>>())
        };
        let publications = publications.to_vec();
        let current = self.is_current(ledger);
        let judged = self.judge(publish, &topic, name, &publications, &subscribed, current);
        match judged {
            Ok(()) => Ok(request),
            Err(fault) => {
                let mut text = format!("{fault}\n  on {topic:?} at {}", ledger.now());
                for publication in publications.iter().rev().take(5) {
                    let _ = write!(text, "\n  {publication:?}");
                }
                for subscribed in subscribed.iter().rev().take(40) {
                    let _ = write!(text, "\n  {subscribed:?}");
                }
                let publisher = publications.last().and_then(|p| p.client.as_deref());
                if let Some((_, client_id)) = publisher.and_then(|name| name.split_once('\0')) {
                    let _ = write!(text, "\npublisher:\n{}", ledger.history(client_id));
                    for transcript in ledger.transcripts(client_id) {
                        let _ = write!(text, "{transcript}");
                    }
                }
                Err(text)
            }
        }
    }

    /// One message, against what was published and what is subscribed.
    fn judge(
        &mut self,
        publish: &Publish<'_>,
        topic: &Rc<str>,
        name: u64,
        publications: &[Publication],
        subscribed: &[Subscribed],
        current: bool,
    ) -> Verdict {
        let fits = |publication: &&Publication| self.is_from(publish, publication).is_ok();
        let Some(publication) = publications.iter().find(fits) else {
            let first = publications.first().ok_or("a message that nobody published")?;
            self.is_from(publish, first)?;
            return Err("a message that nobody published".to_owned());
        };
        if self.known {
            self.check_subscriptions(publish, publications, subscribed)?;
        }
        let shared = !self.known || subscribed.iter().any(Subscribed::is_shared);
        if !shared && !publish.dup && !publish.retain && !publication.repeated {
            self.check_order(topic, publish.qos, publication)?;
            if current && !self.session.borrow_mut().delivered.insert(name) {
                return Err("the same publication for the second time, not DUP".to_owned());
            }
        }
        if publish.dup && self.known {
            self.session.borrow_mut().delivered.insert(name);
        }
        Ok(())
    }

    fn delivered_topic(&mut self, publish: &Publish<'_>) -> Verdict<Rc<str>> {
        let maximum = self.hello.as_ref().map_or(0, |hello| hello.alias_maximum);
        let Some(alias) = publish.properties.topic_alias else { return Ok(publish.topic.into()) };
        if alias == 0 || alias > maximum {
            return Err(format!("topic alias {alias}, maximum {maximum} [MQTT-3.1.2-26]"));
        }
        if publish.topic.is_empty() {
            let topic = self.broker_aliases.get(&alias);
            return topic.cloned().ok_or_else(|| format!("topic alias {alias} was never set"));
        }
        self.broker_aliases.insert(alias, publish.topic.into());
        Ok(publish.topic.into())
    }

    /// Identifier, window and DUP.
    fn take_off(&mut self, publish: &Publish<'_>, message: u64, shared: bool) -> Verdict<Request> {
        let Some(id) = publish.id.map(|id| id.get()) else { return Ok(Request::Nothing) };
        let stray = self.session.borrow().strays.contains(&id);
        if self.in_flight.contains_key(&id) && !stray {
            return Err(format!("packet identifier {id} is in flight [MQTT-2.2.1-4]"));
        }
        if publish.dup {
            if !self.resumed {
                return Err("DUP in a session that has just begun [MQTT-3.3.1-1]".to_owned());
            }
            if self.came.contains(&id) {
                return Err(format!("{id} again on one connection [MQTT-4.4.0-1]"));
            }
            if self.inherited.get(&id).is_some_and(|before| *before != message) {
                return Err(format!("another message under {id}, which is in flight"));
            }
        } else if self.known && self.keeps_all() && self.inherited.contains_key(&id) {
            let same = self.inherited.get(&id) == Some(&message);
            let what = if same { "the same message" } else { "another message" };
            return Err(format!("{id} was in flight before, {what} comes without DUP"));
        }
        self.inherited.remove(&id);
        self.came.insert(id);
        let flight = Flight { qos: publish.qos, message, received: false, shared, doubtful: false };
        self.in_flight.insert(id, flight);
        self.session.borrow_mut().in_flight.insert(id, flight);
        let (maximum, v311) = self.hello.as_ref().map_or((0, false), |hello| {
            (usize::from(hello.receive_maximum), hello.version == Version::V311)
        });
        let maximum = if v311 { usize::from(u16::MAX) } else { maximum };
        let strays = self.session.borrow().strays.len();
        if self.in_flight.len() > maximum + strays {
            return Err(format!("above the Receive Maximum of {maximum} [MQTT-3.3.4-9]"));
        }
        Ok(if publish.qos == QoS::AtLeastOnce { Request::PubAck(id) } else { Request::PubRec(id) })
    }

    /// Whether the broker has no reason to give up what is in flight: a message can be too large
    /// for this connection ([MQTT-3.1.2-25]), or dropped from a full queue.
    pub(super) fn keeps_all(&self) -> bool {
        let maximum = self.hello.as_ref().map_or(0, |hello| hello.maximum_packet);
        maximum >= self.limits.max_packet_bytes && !self.may_drop()
    }

    /// Whether a run fills a session's queue: what is in flight may be dropped from it as well.
    pub(super) fn may_drop(&self) -> bool {
        self.limits.queue_messages < DROPPING_BELOW
    }

    /// Whether the message is this publication, with nothing changed that may not change.
    fn is_from(&self, publish: &Publish<'_>, publication: &Publication) -> Verdict {
        if publish.qos > publication.qos {
            let (was, is) = (publication.qos, publish.qos);
            return Err(format!("published with {was:?}, delivered with {is:?}"));
        }
        if publish.retain && !publication.retain {
            return Err("RETAIN, which the publisher did not set".to_owned());
        }
        if self.version() == Version::V311 {
            return Ok(());
        }
        let properties = publish.properties.forwardable();
        let same = match properties.strip_prefix(&publication.properties[..]) {
            Some(added) if publication.bridged => added.starts_with(VIA),
            Some(added) => added.is_empty(),
            None => false,
        };
        if !same {
            return Err("the properties were changed [MQTT-3.3.2-17]".to_owned());
        }
        let age = publication.written.elapsed() + Duration::from_secs(2);
        match (publish.properties.message_expiry_secs, publication.expiry_secs) {
            (None, None) => Ok(()),
            (Some(left), Some(first)) if left > first => {
                Err(format!("message expiry {left} grew from {first} [MQTT-3.3.2-6]"))
            }
            (Some(left), Some(first))
                if !publication.will && u64::from(first - left) > age.as_secs() =>
            {
                Err(format!("message expiry {left} of {first} after {age:?} [MQTT-3.3.2-6]"))
            }
            (Some(_), Some(_)) => Ok(()),
            (left, first) => Err(format!("message expiry {left:?}, published with {first:?}")),
        }
    }

    /// Whether a subscription explains the message, its QoS, its RETAIN and its identifiers.
    fn check_subscriptions(
        &self,
        publish: &Publish<'_>,
        publications: &[Publication],
        subscribed: &[Subscribed],
    ) -> Verdict {
        // The same words may have been published several times: this may be the first of them.
        let first = publications.iter().map(|publication| publication.at).min().unwrap_or(0);
        let explains = |s: &&Subscribed| s.until.is_none_or(|until| first <= until);
        let explaining: Vec<&Subscribed> = subscribed.iter().filter(explains).collect();
        if explaining.is_empty() {
            return Err("no subscription explains the message".to_owned());
        }
        if !explaining.iter().any(|s| publish.qos <= s.options.qos) {
            return Err(format!("{:?} is above what was granted [MQTT-3.8.4-8]", publish.qos));
        }
        let kept = |s: &&&Subscribed| {
            s.options.retain_as_published || s.options.retain_handling != RetainHandling::DoNotSend
        };
        if publish.retain && !explaining.iter().any(|s| kept(&s)) {
            return Err("RETAIN without a reason [MQTT-3.3.1-12]".to_owned());
        }
        let own = self.hello.as_ref().and_then(|hello| hello.client.clone());
        let from_others = |p: &Publication| p.client.is_none() || p.client != own || p.will;
        if !publish.retain
            && explaining.iter().all(|s| s.options.no_local)
            && !publications.iter().any(from_others)
        {
            return Err("its own message, despite No Local [MQTT-3.8.3-3]".to_owned());
        }
        for identifier in publish.properties.subscription_ids.iter() {
            if !explaining.iter().any(|s| s.identifier == Some(identifier)) {
                return Err(format!("unknown Subscription Identifier {identifier}"));
            }
        }
        Ok(())
    }

    /// [MQTT-4.6.0-5], [MQTT-4.6.0-6]
    fn check_order(&mut self, topic: &Rc<str>, qos: QoS, publication: &Publication) -> Verdict {
        if publication.will {
            return Ok(());
        }
        let stream = (topic.clone(), publication.connection, publication.qos, qos);
        let last = self.order.insert(stream, publication.at);
        if let Some(last) = last.filter(|last| *last > publication.at) {
            return Err(format!("overtaken by the publication at {last} of its publisher"));
        }
        Ok(())
    }
}
