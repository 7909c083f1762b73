//! Acknowledgements owed to the client, in the order its packets arrived.
//!
//! PUBACKs leave in the order of their PUBLISH packets ([MQTT-4.6.0-2]), PUBRECs likewise
//! ([MQTT-4.6.0-3]); an answer that waits for a commit therefore holds back those behind it.
//! `W` is the answer and whatever work goes with it.

use std::collections::VecDeque;

use hoopoe_codec::ReasonCode;

#[derive(Debug)]
struct Owed<W> {
    commits: u8,
    code: ReasonCode,
    /// A commit was done although another was refused, or may be.
    accepted: bool,
    topic: u64,
    work: W,
}

/// Answers owed, oldest first.
#[derive(Debug)]
pub struct Answers<W> {
    first: u64,
    owed: VecDeque<Owed<W>>,
}

impl<W> Default for Answers<W> {
    fn default() -> Self {
        Answers { first: 0, owed: VecDeque::new() }
    }
}

impl<W> Answers<W> {
    /// True when nothing is owed: an answer may leave at once.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Answers owed.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// What is owed, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &W> {
        self.owed.iter().map(|owed| &owed.work)
    }

    /// As [`iter`](Self::iter), to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.owed.iter_mut().map(|owed| &mut owed.work)
    }

    /// Owes an answer that waits for `commits` commits (0: only for its turn). `topic` is the
    /// hash of a publication's topic, 0 for other packets. Gives the token to settle it by.
    pub fn owe(&mut self, commits: u8, topic: u64, work: W) -> u64 {
        self.owed.push_back(Owed {
            commits,
            code: ReasonCode::Success,
            accepted: false,
            topic,
            work,
        });
        self.first + self.owed.len() as u64 - 1
    }

    /// One commit for `token` is done. The first refusal is the one that counts, but for
    /// `RetainNotSupported`, as whoever refuses only to retain refuses less. `ServerUnavailable`,
    /// from who cannot write and does not know what it has, counts before others, and before that
    /// `UnspecifiedError`, of which nobody knows. False when nothing is owed under that token.
    pub fn settle(&mut self, token: u64, code: ReasonCode) -> bool {
        let Some(owed) = token
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.owed.get_mut(at))
            .filter(|owed| owed.commits > 0)
        else {
            return false;
        };
        owed.commits -= 1;
        owed.accepted |= !code.is_error() || code == ReasonCode::RetainNotSupported;
        let outranks = match owed.code {
            ReasonCode::RetainNotSupported => true,
            ReasonCode::UnspecifiedError => false,
            _ if code == ReasonCode::UnspecifiedError => true,
            before => !before.is_error() || code == ReasonCode::ServerUnavailable,
        };
        if code.is_error() && outranks {
            owed.code = code;
        }
        true
    }

    /// What is owed under a token that has not been answered.
    pub fn get_mut(&mut self, token: u64) -> Option<&mut W> {
        let at = usize::try_from(token.checked_sub(self.first)?).ok()?;
        self.owed.get_mut(at).map(|owed| &mut owed.work)
    }

    /// Whether the answer whose turn is next was refused by some commits and accepted by others.
    pub fn is_divided(&self) -> bool {
        self.owed.front().is_some_and(|owed| owed.accepted && owed.code.is_error())
    }

    /// The next answer whose turn has come.
    pub fn pop_ready(&mut self) -> Option<(W, ReasonCode)> {
        if self.owed.front()?.commits > 0 {
            return None;
        }
        let owed = self.owed.pop_front()?;
        self.first += 1;
        Some((owed.work, owed.code))
    }

    /// True while an earlier publication to this topic waits: a later one that needs no commit
    /// has to wait for it ([MQTT-4.6.0-5]).
    pub fn holds_topic(&self, topic: u64) -> bool {
        self.owed.iter().any(|owed| owed.topic == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_arrival() {
        let mut answers = Answers::default();
        let first = answers.owe(2, 11, "first");
        let second = answers.owe(1, 22, "second");
        let third = answers.owe(0, 33, "third");
        assert!(answers.settle(second, ReasonCode::Success));
        assert!(answers.pop_ready().is_none());
        assert!(answers.settle(first, ReasonCode::QuotaExceeded));
        assert!(answers.pop_ready().is_none(), "one of two commits is not enough");
        assert!(answers.holds_topic(11));
        assert!(answers.settle(first, ReasonCode::NotAuthorized));
        assert_eq!(answers.pop_ready(), Some(("first", ReasonCode::QuotaExceeded)));
        assert_eq!(answers.pop_ready(), Some(("second", ReasonCode::Success)));
        assert_eq!(answers.pop_ready(), Some(("third", ReasonCode::Success)));
        assert!(answers.is_empty());
        assert!(!answers.settle(third, ReasonCode::Success), "a settled token is void");
        assert!(!answers.settle(99, ReasonCode::Success));
    }

    #[test]
    fn what_leaves_more_open_counts_before_other_refusals() {
        use ReasonCode::{
            NotAuthorized, QuotaExceeded, RetainNotSupported, ServerUnavailable, Success,
            UnspecifiedError,
        };
        for (codes, counts) in [
            ([Success, QuotaExceeded], QuotaExceeded),
            ([NotAuthorized, QuotaExceeded], NotAuthorized),
            ([RetainNotSupported, QuotaExceeded], QuotaExceeded),
            ([QuotaExceeded, RetainNotSupported], QuotaExceeded),
            ([QuotaExceeded, ServerUnavailable], ServerUnavailable),
            ([ServerUnavailable, UnspecifiedError], UnspecifiedError),
            ([UnspecifiedError, ServerUnavailable], UnspecifiedError),
        ] {
            let mut answers = Answers::default();
            let token = answers.owe(2, 0, ());
            for code in codes {
                assert!(answers.settle(token, code));
            }
            assert_eq!(answers.pop_ready(), Some(((), counts)), "{codes:?}");
        }
    }

    #[test]
    fn an_answer_is_divided_if_one_commit_was_done_and_another_was_not() {
        use ReasonCode::{QuotaExceeded, RetainNotSupported, Success};
        for (codes, divided) in [
            ([Success, Success], false),
            ([Success, QuotaExceeded], true),
            ([QuotaExceeded, Success], true),
            ([QuotaExceeded, QuotaExceeded], false),
            ([RetainNotSupported, QuotaExceeded], true),
        ] {
            let mut answers = Answers::default();
            let token = answers.owe(2, 0, ());
            for code in codes {
                assert!(answers.settle(token, code));
            }
            assert_eq!(answers.is_divided(), divided, "{codes:?}");
        }
    }
}
