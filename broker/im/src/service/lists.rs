//! What the services `group`, `channel`, `roster` and `receipt` read.

use serde_json::Value;

use super::Caller;
use super::ops::{GroupMembers, Page, Receipt};
use super::query::Query;
use crate::command::User;
use crate::refusal::{Fault, Refusal};

impl Query {
    pub(super) fn roster_list(&self, _user: &User, _page: &Page) -> Result<Value, Fault> {
        Err(Refusal::not_found("roster").into())
    }
    pub(super) fn group_info(&self, _caller: &Caller, _group: &str) -> Result<Value, Fault> {
        Err(Refusal::not_found("group").into())
    }
    pub(super) fn group_list(&self, _user: &User, _page: &Page) -> Result<Value, Fault> {
        Err(Refusal::not_found("group").into())
    }
    pub(super) fn group_members(&self, _c: &Caller, _page: &GroupMembers) -> Result<Value, Fault> {
        Err(Refusal::not_found("group").into())
    }
    pub(super) fn channel_info(&self, _user: &User, _channel: &str) -> Result<Value, Fault> {
        Err(Refusal::not_found("channel").into())
    }
    pub(super) fn receipt_list(&self, _c: &Caller, _of: &Receipt) -> Result<Value, Fault> {
        Err(Refusal::not_found("receipt").into())
    }
    pub(super) fn receipt_count(&self, _c: &Caller, _of: &Receipt) -> Result<Value, Fault> {
        Err(Refusal::not_found("receipt").into())
    }
}
