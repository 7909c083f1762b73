//! What a packet from the broker means to a device, as events for the judge. Nothing is answered
//! here.

use serde_json::Value;

use super::cast::Cast;
use super::entry::Entry;
use super::event::{Answer, Event, Line, Link, Sent};
use super::judge::Judge;
use crate::{Ack, Packet, Publish, Version};

/// A client message id, or the id of a request, says which deed it is of.
pub(super) fn name_of(letter: char, deed: usize) -> String {
    format!("{letter}{deed}")
}

fn deed_of(name: &str) -> Option<usize> {
    name.get(1..)?.parse().ok()
}

/// Reads what comes over one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    /// A refusal was told whose acknowledgement has not come yet (3.1.1).
    refusal: Option<String>,
}

/// Who looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looker {
    pub(super) device: usize,
    pub(super) user: usize,
    pub(super) version: Version,
    pub(super) link: Link,
}

impl Sight {
    /// A packet came; `deed` is the one under a packet identifier.
    pub(super) fn see(
        &mut self,
        who: Looker,
        packet: &Packet,
        deed: impl Fn(u16) -> Option<usize>,
        judge: &mut Judge,
    ) {
        let device = who.device;
        match packet {
            Packet::ConnAck(connack) if connack.code == 0 => {
                let present = connack.session_present;
                judge.note(Event::Connected { device, link: who.link, present });
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) => match deed(ack.id) {
                Some(deed) => self.acknowledged(who, deed, ack, judge),
                None => {
                    let what = format!("an acknowledgement of nothing, id {}", ack.id);
                    judge.note(Event::Fault { device, what });
                }
            },
            Packet::PingResp => judge.note(Event::Pong { device }),
            Packet::Publish(publish) => {
                if let Err(what) = self.publication(who, publish, judge) {
                    let what = format!("{what}: {}", publish.topic);
                    judge.note(Event::Fault { device, what });
                }
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, who: Looker, deed: usize, ack: &Ack, judge: &mut Judge) {
        let known = judge.deed(deed);
        if ack.code >= 0x80 {
            let answer = Answer::Refused(ack.code.to_string());
            judge.note(Event::Answered { deed, answer });
        } else if known.what.is_call() {
            // The answer is a publication of its own.
        } else if let Some(refused) = self.refusal.take() {
            judge.note(Event::Answered { deed, answer: Answer::Refused(refused) });
        } else {
            let pairs = ack.properties.user_properties();
            let value = |name: &str| pairs.iter().find(|(of, _)| *of == name).map(|(_, v)| *v);
            let sent = (value("im-seq"), value("im-id"), value("im-ts"));
            let answer = match sent {
                (Some(seq), Some(id), Some(ts)) => Answer::Sent(Sent {
                    seq: seq.parse().unwrap_or(0),
                    id: id.to_owned(),
                    ts: ts.parse().unwrap_or(0),
                }),
                _ => Answer::Done,
            };
            let told_before = who.version == Version::V311 && judge.is_answered(deed);
            if !told_before {
                judge.note(Event::Answered { deed, answer });
            }
        }
    }

    fn publication(
        &mut self,
        who: Looker,
        publish: &Publish,
        judge: &mut Judge,
    ) -> Result<(), &'static str> {
        let rest = publish.topic.strip_prefix("im/me/").ok_or("not of the inbox")?;
        let levels: Vec<&str> = rest.split('/').collect();
        match levels[..] {
            ["in", kind, id, ..] => {
                let (name, header) = rest["in/".len()..].split_at(kind.len() + 1 + id.len());
                let cast = judge.cast.clone();
                let conv = cast.conv_of(who.user, name).ok_or("a conversation of others")?;
                let entry = Entry::read(header, publish).ok_or("no entry")?;
                let Looker { device, link, .. } = who;
                judge.note(Event::Delivered { device, link, conv, entry });
            }
            ["sys", "hello"] => {
                judge.note(Event::Hello { device: who.device, link: who.link });
            }
            ["sys", "gap", kind, id, from, to] => {
                let name = format!("{kind}/{id}");
                let gap = gap_of(&judge.cast, who.device, &name, from, to).ok_or("no gap")?;
                judge.note(gap);
            }
            ["sys", "sent", cid, _, _, seq, id, ts] => {
                let deed = deed_of(cid).filter(|deed| *deed < judge.deeds()).ok_or("no cid")?;
                let numbers = (seq.parse().ok(), ts.parse().ok());
                let (Some(seq), Some(ts)) = numbers else { return Err("no numbers") };
                let answer = Answer::Sent(Sent { seq, id: id.to_owned(), ts });
                judge.note(Event::Answered { deed, answer });
            }
            ["sys", "err", _, code] => self.refusal = Some(code.to_owned()),
            ["res", req, "m", ..] => {
                let deed = deed_of(req).ok_or("no request")?;
                let header = &rest[format!("res/{req}/m").len()..];
                let entry = Entry::read(header, publish).ok_or("no entry")?;
                judge.note(Event::Pulled { deed, entry });
            }
            ["res", req, status] => {
                let deed = deed_of(req).filter(|deed| *deed < judge.deeds());
                let deed = deed.ok_or("no request")?;
                let body = serde_json::from_slice(&publish.payload).map_err(|_| "no JSON")?;
                answered(deed, status, &body, judge).ok_or("not as the profile says")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a device is told not to wait for.
fn gap_of(cast: &Cast, device: usize, name: &str, from: &str, to: &str) -> Option<Event> {
    let conv = cast.conv_of(cast.devices[device].user, name)?;
    Some(Event::Gap { device, conv, from: from.parse().ok()?, to: to.parse().ok()? })
}

/// A packet was written to a connection that the device has left: nobody reads it. What is not
/// there any more is named once, as that moves the device's cursor at once (ruling 21).
pub(super) fn missed(device: usize, packet: &Packet, judge: &mut Judge) {
    let Packet::Publish(publish) = packet else { return };
    let levels: Vec<&str> = publish.topic.split('/').collect();
    if let ["im", "me", "sys", "gap", kind, id, from, to] = levels[..] {
        let name = format!("{kind}/{id}");
        if let Some(gap) = gap_of(&judge.cast, device, &name, from, to) {
            judge.note(gap);
        }
    }
}

/// A service has answered.
fn answered(deed: usize, status: &str, body: &Value, judge: &mut Judge) -> Option<()> {
    match status {
        "end" => {
            let (min, last) = (body["min"].as_u64()?, body["last"].as_u64()?);
            judge.note(Event::PullEnded { deed, next: body["next"].as_u64(), min, last });
        }
        "ok" if body.get("unread_total").is_some() => {
            let cast = judge.cast.clone();
            let user = cast.devices[judge.deed(deed).device].user;
            let found = body["conversations"].as_array()?;
            let lines: Option<Vec<Line>> = found.iter().map(|l| line(&cast, user, l)).collect();
            let lines = lines?;
            let shown: u64 = lines.iter().map(|line| line.unread).sum();
            let total = body["unread_total"].as_u64()?;
            // What is hidden is not shown, and counts.
            (total == shown || (total > shown && judge.hides(user))).then_some(())?;
            judge.note(Event::Listed { deed, lines });
        }
        "ok" => judge.note(Event::Answered { deed, answer: Answer::Done }),
        word => {
            let answer = Answer::Refused(word.to_owned());
            judge.note(Event::Answered { deed, answer });
        }
    }
    Some(())
}

fn line(cast: &Cast, user: usize, line: &Value) -> Option<Line> {
    let number = |name: &str| line[name].as_u64();
    Some(Line {
        conv: cast.conv_of(user, line["conv"].as_str()?)?,
        last: number("last")?,
        count: number("cnt")?,
        unread: number("unread")?,
        read: number("read")?,
        recv: number("recv")?,
        min: number("min")?,
    })
}
