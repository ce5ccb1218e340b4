//! The inbox of notifications: the results of its mails.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The results from the mail server or the mail folder.
    pub enum Command in "../../schemas" {
        inbox of "notifications" { MailSent = 1, MailRefused = 1 }
    }
}

/// A mail was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailSent {
    /// The notification.
    pub notification_id: String,
    /// The mail's Message-ID.
    pub message_id: String,
}

/// A mail was refused permanently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRefused {
    /// The notification.
    pub notification_id: String,
    /// The reason of the mail server, or the fault of the address.
    pub reason: String,
}
