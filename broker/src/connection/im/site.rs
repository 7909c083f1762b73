//! Links of other sites as connections of this broker: what they may publish and hear, and the
//! calls of users here that are judged there. The sites themselves are in `crate::im::sites`.

use hoopoe_codec::{Publish, ReasonCode};
use hoopoe_core::Location;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::service::Call;

use crate::access::{DEFAULT_TENANT, Identity, LoginMethod};
use crate::connection::session::Answer;
use crate::connection::worker::Worker;
use crate::connection::{Connection, Env};
use crate::im::sites::{SiteNode, site_topic};

/// For which site a client speaks, if it is a link; a link of this broker's own, whose rules the
/// operator has written, speaks for whom it may (the inner `None`).
fn link_of<'a>(sites: &'a SiteNode, identity: &Identity) -> Option<Option<&'a str>> {
    if identity.method == LoginMethod::Bridge {
        return Some(None);
    }
    if *identity.tenant != *DEFAULT_TENANT {
        return None;
    }
    sites.rules().site_of_link(&identity.user).map(Some)
}

/// Whether a client may hear what is said to another site.
pub(in crate::connection) fn site_link_hears(env: &Env, identity: &Identity, filter: &str) -> bool {
    let Some(sites) = env.im.sites() else { return false };
    link_of(sites, identity).is_some_and(|of| sites.may_subscribe(of, filter))
}

impl Worker {
    /// A PUBLISH below `$hoopoe/site/`: by a link, or refused.
    pub(in crate::connection) fn site_publish(
        &mut self,
        location: Location,
        topic: &str,
        publish: &Publish<'_>,
        answer: Answer,
    ) {
        let (env, now_ms) = (self.env.clone(), self.now_ms);
        let session = self.connection(location).and_then(Connection::session);
        let may = env.im.sites().zip(session).is_some_and(|(sites, session)| {
            let of = link_of(sites, &session.identity);
            of.is_some_and(|of| sites.may_publish(of, topic))
        });
        if !may || publish.retain {
            let words = "only the links of other sites publish here";
            return self.refuse_publish(location, answer, (ReasonCode::NotAuthorized, words));
        }
        if let Some(sites) = env.im.sites()
            && let Some(from) = site_topic(topic).map(|topic| topic.from)
            && let Some(command) = sites.arrived(&env, from, publish.payload, now_ms)
            && let Some(slot) = command.slot()
        {
            self.command(slot, command);
        }
        self.owe(location, 0, 0, answer);
    }

    /// Carries a call to the site that judges it; `None` when that is this one.
    pub(super) fn im_call_elsewhere(
        &self,
        call: &Call,
        name: (&str, &str),
        body: &[u8],
    ) -> Option<Result<(), Refusal>> {
        let sites = self.env.im.sites()?;
        let site = sites.home_of_call(call)?;
        let name = [name.0, "/", name.1].concat();
        Some(sites.ask(site, &call.caller, &name, body, call.asker))
    }
}
