//! A client beside the pairs that fetches all retained messages, over and over: what that costs the
//! others shows in their latencies, held against a run without it.

use anyhow::Result;
use hdrhistogram::Histogram;
use hoopoe_codec::QoS;

use super::base;
use super::retained::{clear, publish_all};
use crate::clock::now_ns;
use crate::net::Net;
use crate::run::{Outcome, Run, histogram};
use crate::shape::Shape;
use crate::talk::Talk;
use crate::talk::world::{RETAINED, qos};

/// The client and its fetch under way.
pub(super) struct Fetcher {
    client: u32,
    filter: (String, QoS),
    topics: u64,
    /// When the fetch under way began, and how many will have arrived when it is done.
    under_way: Option<(u64, u64)>,
    times: Histogram<u64>,
}

impl Fetcher {
    /// The fetcher of this thread, where the shape has one. The topics are filled by the pairs.
    pub(super) fn begin(
        run: &Run,
        shape: &Shape,
        thread: usize,
        net: &mut Net,
        talk: &mut Talk,
    ) -> Result<Option<Fetcher>> {
        if shape.retained == 0 {
            return Ok(None);
        }
        run.phase("filling retained topics");
        let (pairs, count) = (2 * shape.pairs as u32, shape.retained as u32);
        publish_all(
            run,
            net,
            count,
            |topic| topic % pairs,
            |net, topic| talk.speak(net, pairs + topic, now_ns()).then_some(()),
        )?;
        Ok(Some(Fetcher {
            client: pairs,
            filter: (format!("{}/r/#", base(run, thread, "/")), qos(shape.qos)),
            topics: u64::from(count),
            under_way: None,
            times: histogram(),
        }))
    }

    /// Ends the fetch under way when everything is there, and begins the next.
    pub(super) fn go_on(&mut self, net: &mut Net, talk: &mut Talk) {
        let arrived = talk.sorts[usize::from(RETAINED)].arrivals;
        if let Some((began_ns, goal)) = self.under_way {
            if arrived < goal {
                return;
            }
            self.times.saturating_record(now_ns() - began_ns);
        }
        // What came with the last fetch comes again, and is not doubled.
        talk.came_back(self.client);
        net.subscribe(self.client, std::slice::from_ref(&self.filter));
        self.under_way = Some((now_ns(), arrived + self.topics));
    }

    /// Clears what the pairs had filled.
    pub(super) fn clear(&self, run: &Run, net: &mut Net, world: &[String]) -> Result<()> {
        net.leave(self.client);
        let (pairs, names) = (self.client, &world[self.client as usize..]);
        clear(run, net, names, |topic| topic % pairs)
    }

    /// Writes what was fetched; a run in which nothing was is no measurement.
    pub(super) fn conclude(self, outcome: &mut Outcome) {
        if self.times.is_empty() {
            outcome.faults.push("not one fetch of the retained messages was whole".to_owned());
        }
        outcome.figures.insert("fetches".to_owned(), self.times.len() as f64);
        outcome.histograms.push(("fetch", self.times));
    }
}
