//! One order as the audit sees it: which outcome it has, and what is wrong with that outcome. Pure.

use std::collections::BTreeSet;

use super::{reads::Money, report::AuditRule};

/// What the events of one order add up to.
#[derive(Debug, Default)]
pub(super) struct AuditedOrder {
    pub(super) placed: Option<Money>,
    pub(super) rejected: u8,
    pub(super) completed: Option<Money>,
    pub(super) completions: u8,
    pub(super) cancelled: u8,
    /// Numbers of the cancellation requests that the warehouse has to answer.
    pub(super) requests: BTreeSet<i32>,
    /// Requests whose refusal the order-processor has published.
    pub(super) refusals_published: BTreeSet<i32>,
    /// Requests that the warehouse accepted; a request with several answers is in both sets.
    pub(super) accepted: BTreeSet<i32>,
    /// Requests that the warehouse refused.
    pub(super) refused: BTreeSet<i32>,
    pub(super) charges: Vec<Money>,
    pub(super) abandoned: u8,
    pub(super) taken: Vec<Money>,
    pub(super) refunded: Vec<Money>,
    pub(super) declined: u8,
    pub(super) voided: u8,
    pub(super) dispatched: u8,
    pub(super) dispatches_abandoned: u32,
    pub(super) released: u8,
    pub(super) rewarded: u8,
    pub(super) held: i64,
}

/// The outcome of an order.
pub(super) enum OrderOutcome {
    Completed,
    Cancelled,
    Rejected,
    /// None so far; the text says what is missing.
    Open(String),
    Several,
}

/// A broken rule, and the text that follows the order's id.
pub(super) type OrderFault = (AuditRule, String);

impl AuditedOrder {
    pub(super) fn outcome(&self) -> OrderOutcome {
        match (self.completions > 0, self.cancelled > 0, self.rejected > 0) {
            (true, false, false) => OrderOutcome::Completed,
            (false, true, false) if self.released == 0 => {
                OrderOutcome::Open("was cancelled and its stock is not released".to_owned())
            }
            (false, true, false) if self.payment_outcomes() == 0 => {
                OrderOutcome::Open("was cancelled and its payment is neither declined, voided nor refunded".to_owned())
            }
            (false, true, false) => OrderOutcome::Cancelled,
            (false, false, true) => OrderOutcome::Rejected,
            (false, false, false) => OrderOutcome::Open(self.why_open().to_owned()),
            _ => OrderOutcome::Several,
        }
    }

    fn why_open(&self) -> &'static str {
        if !self.accepted.is_empty() {
            "has no outcome, although its cancellation was accepted"
        } else if self.abandoned > 0 {
            "has no outcome, although its payment was abandoned"
        } else if self.dispatches_abandoned > 0 && self.dispatched == 0 {
            "has no outcome: its dispatch was abandoned, and an operator has to decide"
        } else {
            "has no outcome"
        }
    }

    fn payment_outcomes(&self) -> usize {
        usize::from(self.declined) + usize::from(self.voided) + self.refunded.len()
    }

    pub(super) fn faults_of_completed(&self) -> Vec<OrderFault> {
        let mut faults = self.faults_of_accepted();
        let mut check = |ok: bool, rule, fault: &str| {
            if !ok {
                faults.push((rule, fault.to_owned()));
            }
        };
        check(self.completions == 1, AuditRule::SingleOutcome, "was completed more than once");
        check(self.taken.len() == 1, AuditRule::Money, "was completed without exactly one capture");
        check(
            self.completed == self.placed,
            AuditRule::Money,
            "was completed with another total than it was placed with",
        );
        check(self.payment_outcomes() == 0, AuditRule::Money, "was completed, and its payment compensated");
        check(self.abandoned == 0, AuditRule::Money, "was completed, and its payment abandoned");
        check(self.accepted.is_empty(), AuditRule::SingleOutcome, "was completed, and its cancellation accepted");
        check(
            self.requests.is_subset(&self.refusals_published),
            AuditRule::SingleOutcome,
            "was completed, and a cancellation request was never answered",
        );
        check(self.dispatched == 1, AuditRule::SingleOutcome, "was completed without exactly one dispatch");
        check(self.rewarded == 1, AuditRule::SingleOutcome, "was completed without being rewarded exactly once");
        check(self.held == 0, AuditRule::Stock, "was completed and still holds stock");
        check(self.released == 0, AuditRule::SingleOutcome, "was completed, and its stock released");
        faults
    }

    pub(super) fn faults_of_cancelled(&self) -> Vec<OrderFault> {
        let mut faults = self.faults_of_accepted();
        let mut check = |ok: bool, rule, fault: &str| {
            if !ok {
                faults.push((rule, fault.to_owned()));
            }
        };
        check(self.cancelled == 1, AuditRule::SingleOutcome, "was cancelled more than once");
        check(
            self.payment_outcomes() == 1,
            AuditRule::Money,
            "was cancelled, and its payment has more than one outcome",
        );
        check(
            self.taken.len() == self.refunded.len(),
            AuditRule::Money,
            "was cancelled, and captures and refunds differ in number",
        );
        check(self.taken == self.refunded, AuditRule::Money, "was cancelled and not refunded what was captured");
        check(self.released == 1, AuditRule::SingleOutcome, "was cancelled and its stock released more than once");
        check(self.dispatched == 0, AuditRule::SingleOutcome, "was cancelled and dispatched");
        check(self.rewarded == 0, AuditRule::SingleOutcome, "was cancelled and rewarded");
        check(self.held == 0, AuditRule::Stock, "was cancelled and still holds stock");
        faults
    }

    pub(super) fn faults_of_rejected(&self) -> Vec<OrderFault> {
        let mut faults = Vec::new();
        if self.rejected != 1 || self.placed.is_some() {
            let fault = "was rejected more than once, or rejected and placed";
            faults.push((AuditRule::SingleOutcome, fault.to_owned()));
        }
        if !self.taken.is_empty() || self.held != 0 {
            faults.push((AuditRule::Money, "was rejected, and money or stock was taken for it".to_owned()));
        }
        faults
    }

    fn faults_of_accepted(&self) -> Vec<OrderFault> {
        let mut faults = Vec::new();
        match &self.placed {
            None => faults.push((AuditRule::SingleOutcome, "has an outcome but was never placed".to_owned())),
            Some(total) if self.taken.iter().any(|taken| taken != total) => {
                faults.push((AuditRule::Money, "was charged another amount than its total".to_owned()));
            }
            Some(_) => {}
        }
        if self.taken.len() > 1 {
            faults.push((AuditRule::Money, format!("was captured {} times", self.taken.len())));
        }
        if self.charges.len() > 1 {
            faults.push((AuditRule::Money, format!("was charged {} times", self.charges.len())));
        }
        if self.accepted.intersection(&self.refused).next().is_some() {
            let fault = "had a cancellation request both accepted and refused";
            faults.push((AuditRule::SingleOutcome, fault.to_owned()));
        }
        if !self.accepted.is_subset(&self.requests) || !self.refused.is_subset(&self.requests) {
            let fault = "had a cancellation answered that nobody requested";
            faults.push((AuditRule::SingleOutcome, fault.to_owned()));
        }
        faults
    }
}
