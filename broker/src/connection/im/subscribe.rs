//! Filters below `im/`: they change the terms of the inbox, and remove nothing (ruling 28).

use hoopoe_codec::{QoS, ReasonCode, SubscribeOptions};
use hoopoe_core::Location;
use hoopoe_im::topic::{Filter, parse_filter};

use super::InboxFilter;
use crate::connection::Connection;
use crate::connection::room::suback_code;
use crate::connection::worker::Worker;

impl Worker {
    /// Whether the client may have a filter below `im/`, and with which QoS.
    pub(in crate::connection) fn im_grant(
        &mut self,
        location: Location,
        filter: &str,
        options: SubscribeOptions,
    ) -> Result<QoS, ReasonCode> {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Err(ReasonCode::UnspecifiedError);
        };
        if session.im.is_none() {
            return Err(ReasonCode::NotAuthorized);
        }
        match parse_filter(filter, session.version) {
            Ok(Filter::Inbox(_)) => Ok(options.qos),
            // Ruling 29: SUBACK grants QoS 0.
            Ok(Filter::Room { room }) => match self.may_enter(location, room) {
                Ok(()) => Ok(QoS::AtMostOnce),
                Err(refusal) => Err(suback_code(&refusal)),
            },
            Err(error) => Err(error.reason()),
        }
    }

    /// Takes a granted filter into the device's terms.
    pub(in crate::connection) fn im_subscribed(
        &mut self,
        location: Location,
        filter: &str,
        options: SubscribeOptions,
        identifier: u32,
    ) {
        if self.enter_later(location, filter, options, identifier) {
            return;
        }
        let device = self.connection(location).and_then(Connection::session);
        let Some(im) = device.and_then(|session| session.im.as_mut()) else { return };
        im.filters.retain(|own| *own.filter != *filter);
        im.filters.push(InboxFilter { filter: filter.into(), options, identifier });
    }

    /// A filter is given up: its topics come on the usual terms again.
    pub(in crate::connection) fn im_unsubscribed(&mut self, location: Location, filter: &str) {
        let device = self.connection(location).and_then(Connection::session);
        let own = device.and_then(|session| session.im.as_mut()?.filters.if_made());
        if let Some(own) = own {
            own.retain(|own| *own.filter != *filter);
        }
        self.leave_by_filter(location, filter);
    }
}
