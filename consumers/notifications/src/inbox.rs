//! What enters the inbox of notifications: what became of its mails.

use serde::{Deserialize, Serialize};

runtime::produces! {
    /// The answers of the mail server, or of the mail folder.
    pub enum Command in "../../schemas" {
        inbox of "notifications" { MailSent = 1, MailRefused = 1 }
    }
}

/// A mail was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailSent {
    /// The notification.
    pub notification_id: String,
    /// The mail's Message-ID.
    pub message_id: String,
}

/// A mail will never be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRefused {
    /// The notification.
    pub notification_id: String,
    /// What the mail server or the address said.
    pub reason: String,
}
