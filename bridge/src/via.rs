//! Which brokers a message has passed, so that no circle of links carries it for ever.
//!
//! In MQTT 5.0 a message carries the user property [`VIA`] with the ids of the brokers whose links
//! have carried it. At the local broker, which speaks 5.0 always, messages that came in over a link
//! have it too, whatever the remote broker speaks. A link refuses what has passed the broker that it
//! leads to, what came in over itself, and what has passed more links than it may. A client that
//! sets the property itself keeps its own message from passing, and nothing else.
//!
//! The hop rule of 3.1.1: what comes in over a link with `max_hops` of 0 is marked to stay, and a
//! Hoopoe hands nothing that [`stays`] to bridges of 3.1.1 that are its clients, as they could not
//! say where it has been. So every circle of such links ends at its second hop.

use hoopoe_codec::{PropertyBlock, UserProperties};

/// The user property, a list of ids with commas between them.
pub const VIA: &str = "hoopoe-via";

/// The user property of CONNACK in which a Hoopoe says its id.
pub const BROKER_ID: &str = "hoopoe-id";

/// What an id begins with if the message must not go to a broker that cannot see the way it came.
/// No broker's id does.
const STAYS: char = '!';

/// Bytes of ids beyond which somebody else than a link wrote them.
const MOST_BYTES: usize = 4096;

/// A message has been here before, or everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Looped;

/// What a link knows of the brokers at its ends.
#[derive(Clone, Debug)]
pub struct Via {
    own: String,
    far: String,
    max_hops: usize,
    /// The property with the own id alone, encoded: what most messages get on their way out.
    own_alone: PropertyBlock,
    /// The same with the remote broker's.
    far_alone: PropertyBlock,
}

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the remote broker.
    Out,
    /// To the local broker.
    In,
}

/// The property that a message gets.
#[derive(Debug)]
pub enum Mark<'a> {
    /// One id, encoded already.
    First(&'a [u8]),
    /// Several.
    More(String),
}

impl Via {
    /// For a link from the broker `own` to one whose id is not known yet.
    pub fn new(own: &str, link: &str, max_hops: u16) -> Via {
        let mut via = Via {
            own: own.to_owned(),
            far: String::new(),
            max_hops: usize::from(max_hops),
            own_alone: PropertyBlock::new().with(VIA, own),
            far_alone: PropertyBlock::new(),
        };
        // A name that no broker has, for one that does not say its id.
        via.leads_to(&format!("~{own}:{link}"));
        via
    }

    /// For a link of 3.1.1 that carries one hop: what comes in stays, see [`stays`].
    pub fn staying(own: &str, link: &str) -> Via {
        let mut via = Via::new(own, link, 0);
        via.leads_to(&format!("{STAYS}~{own}:{link}"));
        via
    }

    /// The remote broker has said its id.
    pub fn leads_to(&mut self, far: &str) {
        far.clone_into(&mut self.far);
        self.far_alone = PropertyBlock::new().with(VIA, far);
    }

    /// What a message on its way gets to carry.
    ///
    /// # Errors
    /// When it must not pass.
    pub fn pass(&self, way: Way, properties: UserProperties<'_>) -> Result<Mark<'_>, Looped> {
        let (comes_from, leads_to, alone) = match way {
            Way::Out => (&self.own, &self.far, &self.own_alone),
            Way::In => (&self.far, &self.own, &self.far_alone),
        };
        let (mut hops, mut list) = (0, String::new());
        for (_, ids) in properties.iter().filter(|(name, _)| *name == VIA) {
            if list.len() + ids.len() > MOST_BYTES {
                return Err(Looped);
            }
            for id in ids.split(',').filter(|id| !id.is_empty()) {
                if id == leads_to {
                    return Err(Looped);
                }
                hops += 1;
                list.push_str(id);
                list.push(',');
            }
        }
        if hops > self.max_hops {
            return Err(Looped);
        }
        if list.is_empty() {
            return Ok(Mark::First(alone.as_bytes()));
        }
        // It may stand there already: a link that leads here wrote it.
        if list.trim_end_matches(',').rsplit(',').next() == Some(comes_from) {
            list.pop();
        } else {
            list.push_str(comes_from);
        }
        Ok(Mark::More(list))
    }

    /// The local broker's id.
    pub fn own(&self) -> &str {
        &self.own
    }
}

/// Whether a message with these properties must not be handed to a bridge of 3.1.1.
pub fn stays(properties: UserProperties<'_>) -> bool {
    let mut ways = properties.iter().filter(|(name, _)| *name == VIA);
    ways.any(|(_, ids)| ids.split(',').any(|id| id.starts_with(STAYS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(via: &Via, way: Way, ids: &[&str]) -> Option<String> {
        let block: PropertyBlock = ids.iter().map(|ids| (VIA, *ids)).collect();
        match via.pass(way, block.user_properties()) {
            Ok(Mark::More(list)) => Some(list),
            Ok(Mark::First(bytes)) => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                Some(text.rsplit('\0').next().unwrap()[1..].to_owned())
            }
            Err(Looped) => None,
        }
    }

    #[test]
    fn a_message_passes_each_broker_once() {
        let mut via = Via::new("a", "l", 2);
        assert_eq!(pass(&via, Way::Out, &[]).as_deref(), Some("a"));
        assert_eq!(pass(&via, Way::In, &[]).as_deref(), Some("~a:l"));
        // What came in over this link does not go out over it.
        assert_eq!(pass(&via, Way::Out, &["~a:l"]), None);
        via.leads_to("b");
        assert_eq!(pass(&via, Way::Out, &["b"]), None);
        assert_eq!(pass(&via, Way::Out, &["c,b"]), None);
        assert_eq!(pass(&via, Way::In, &["a"]), None);
        assert_eq!(pass(&via, Way::Out, &["c"]).as_deref(), Some("c,a"));
        assert_eq!(pass(&via, Way::Out, &["c", "d"]).as_deref(), Some("c,d,a"));
        // As far as it may and no further.
        assert_eq!(pass(&via, Way::Out, &["c,d,e"]), None);
        // What somebody else wrote harms nobody.
        assert_eq!(pass(&via, Way::Out, &[",,"]).as_deref(), Some("a"));
        assert_eq!(pass(&via, Way::Out, &[&"x".repeat(5000)]), None);
    }

    #[test]
    fn what_came_in_over_one_hop_stays() {
        let marked = |ids: &str| stays(PropertyBlock::new().with(VIA, ids).user_properties());
        let via = Via::staying("a", "l");
        let came = pass(&via, Way::In, &[]).unwrap();
        assert!(marked(&came) && marked(&format!("b,{came}")), "{came}");
        assert_eq!(pass(&via, Way::Out, &[&came]), None);
        assert_eq!(pass(&via, Way::Out, &["b"]), None);
        assert_eq!(pass(&via, Way::Out, &[]).as_deref(), Some("a"));
        // A link of 5.0 carries it on with its mark.
        let on = pass(&Via::new("a", "m", 8), Way::Out, &[&came]).unwrap();
        assert!(marked(&on), "{on}");
        assert!(!marked("~a:l") && !marked("a,b") && !marked(""));
    }
}
