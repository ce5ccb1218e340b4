//! Sends mail: as a file in a folder, or through a mail server. At least once, always with the same Message-ID.
//!
//! The text comes from events and is untrusted: the mail library builds and encodes headers, and the name of a file is a UUID.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp,
};
use runtime::{Answer, Due, Effect, Perform, Unanswered};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Notifications,
    evolve::State,
    folder::MailFolder,
    inbox::{Command, MailRefused, MailSent},
};

/// The host part of every Message-ID.
const MESSAGE_ID_HOST: &str = "musiccorp.example";
/// The timeout of one step of the conversation with a mail server.
const SMTP_TIMEOUT: Duration = Duration::from_secs(20);

/// A mail to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMail {
    /// The notification, which is also the idempotency key.
    pub notification_id: String,
    /// The customer's name.
    pub name: String,
    /// The customer's mail address.
    pub email: String,
    /// The subject line.
    pub subject: String,
    /// The plain text.
    pub body: String,
    /// When the mail was requested.
    pub requested_at_ms: i64,
}

impl Effect for SendMail {
    fn key(&self) -> String {
        self.notification_id.clone()
    }
}

impl SendMail {
    /// The Message-ID: the same for every attempt, and derived from a UUID only.
    #[must_use]
    pub fn message_id(&self) -> String {
        format!("<{}@{MESSAGE_ID_HOST}>", self.file_stem())
    }

    /// The UUID of the notification. An id that is not a UUID is converted to one, because it becomes a file name.
    fn file_stem(&self) -> Uuid {
        Uuid::parse_str(&self.notification_id)
            .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, self.notification_id.as_bytes()))
    }
}

/// The mails that are due in a state.
pub fn pending(state: &State) -> Vec<SendMail> {
    let mail = |(id, mail): (&String, &crate::evolve::DueMail)| SendMail {
        notification_id: id.clone(),
        name: mail.to.name.clone(),
        email: mail.to.email.clone(),
        subject: mail.subject.clone(),
        body: mail.body.clone(),
        requested_at_ms: mail.requested_at,
    };
    state.due.iter().map(mail).collect()
}

/// The destination and the sender of mail, where they are not the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder for mail files [default: mail]
    #[arg(long, env = "DACAPO_MAIL_FOLDER", value_name = "DIR")]
    pub mail_folder: Option<PathBuf>,
    /// Mail server to use instead, unencrypted: a relay on the same machine or network
    #[arg(long, env = "DACAPO_MAIL_SERVER", value_name = "HOST:PORT")]
    pub mail_server: Option<String>,
    /// Compose each mail and discard it, whatever else is set: for a run that keeps no data
    #[arg(long, env = "DACAPO_MAIL_DISCARD", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub mail_discard: Option<bool>,
    /// Sender of mail, by default `MusicCorp <orders@musiccorp.example>`
    #[arg(long, env = "DACAPO_MAIL_FROM", value_name = "MAILBOX")]
    pub mail_from: Option<String>,
}

/// The default sender of mail.
const DEFAULT_SENDER: &str = "MusicCorp <orders@musiccorp.example>";
/// The default mail folder.
const DEFAULT_FOLDER: &str = "mail";

/// Sends mail over one transport.
#[derive(Debug, Clone)]
pub struct Mailer {
    from: Mailbox,
    transport: Transport,
}

#[derive(Debug, Clone)]
enum Transport {
    Folder(MailFolder),
    Discard,
    Server(AsyncSmtpTransport<Tokio1Executor>),
}

/// Why a mailer cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    /// The sender is not a mail address.
    #[error("the sender {sender:?} is not a mail address, such as \"MusicCorp <orders@musiccorp.example>\"")]
    Sender {
        /// What was given.
        sender: String,
        /// What is wrong with it.
        #[source]
        source: lettre::address::AddressError,
    },
    /// The mail folder cannot be created.
    #[error("cannot create the mail folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address of the mail server is invalid.
    #[error("the mail server {server:?} is not an address, such as \"localhost:1025\"")]
    Server {
        /// What was given.
        server: String,
    },
}

impl Mailer {
    /// The mailer for the settings: discarding if that is set, else the server if one is given, else the folder.
    ///
    /// # Errors
    /// The sender, the server or the folder cannot be used.
    pub fn of(settings: &Settings) -> Result<Self, MailerError> {
        let sender = settings.mail_from.as_deref().unwrap_or(DEFAULT_SENDER);
        if settings.mail_discard == Some(true) {
            return Self::discarding(sender);
        }
        match &settings.mail_server {
            Some(server) => Self::to_server(sender, server),
            None => Self::into_folder(sender, settings.mail_folder.clone().unwrap_or_else(|| DEFAULT_FOLDER.into())),
        }
    }

    /// A mailer that writes each mail as a file `<uuid>.eml` into a folder, which is created if it does not exist.
    ///
    /// # Errors
    /// The sender is not a mail address, or the folder cannot be created.
    pub fn into_folder(sender: &str, folder: impl Into<PathBuf>) -> Result<Self, MailerError> {
        let from = mailbox(sender)?;
        let folder = folder.into();
        match MailFolder::open(&folder) {
            Ok(folder) => Ok(Self { from, transport: Transport::Folder(folder) }),
            Err(source) => Err(MailerError::Folder { folder, source }),
        }
    }

    /// A mailer that composes each mail and discards it: for a run that keeps no data. Removing a file per mail would take longer
    /// than sending the mail.
    ///
    /// # Errors
    /// The sender is not a mail address.
    pub fn discarding(sender: &str) -> Result<Self, MailerError> {
        Ok(Self { from: mailbox(sender)?, transport: Transport::Discard })
    }

    /// A mailer that uses a mail server, addressed as `host:port`. Unencrypted and without credentials: it is for a relay on the
    /// same machine or network, which is responsible for encryption.
    ///
    /// # Errors
    /// The sender is not a mail address, or the address of the server is invalid.
    pub fn to_server(sender: &str, server: &str) -> Result<Self, MailerError> {
        let address = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = address.filter(|(host, _)| !host.is_empty()) else {
            return Err(MailerError::Server { server: server.to_owned() });
        };
        let relay = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port)
            .timeout(Some(SMTP_TIMEOUT))
            .build();
        Ok(Self { from: mailbox(sender)?, transport: Transport::Server(relay) })
    }

    /// Composes the mail as it goes over the wire.
    ///
    /// # Errors
    /// The reason as text, if the address of the customer is invalid: such a mail can never be sent.
    pub fn compose(&self, mail: &SendMail) -> Result<Message, String> {
        let address: Address = mail.email.parse().map_err(|error| format!("the address is invalid: {error}"))?;
        let requested_at = u64::try_from(mail.requested_at_ms).unwrap_or_default();
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(Some(one_line(&mail.name)), address))
            .subject(one_line(&mail.subject))
            .message_id(Some(mail.message_id()))
            .date(SystemTime::UNIX_EPOCH + Duration::from_millis(requested_at))
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.clone())
            .map_err(|error| format!("the mail cannot be composed: {error}"))
    }

    async fn send(&self, mail: &SendMail) -> Result<Delivery, Unanswered> {
        let message = match self.compose(mail) {
            Ok(message) => message,
            Err(reason) => return Ok(Delivery::Refused(reason)),
        };
        match &self.transport {
            Transport::Folder(folder) => match folder.write(mail.file_stem(), message.formatted()).await {
                Ok(()) => Ok(Delivery::Sent),
                Err(error) => Err(Unanswered::new(format!("cannot write a mail to the folder: {error}"))),
            },
            Transport::Discard => Ok(Delivery::Sent),
            Transport::Server(server) => match server.send(message).await {
                Ok(_) => Ok(Delivery::Sent),
                Err(error) if is_final(&error) => Ok(Delivery::Refused(error.to_string())),
                Err(error) => Err(Unanswered::new(format!("the mail server did not accept a mail: {error}"))),
            },
        }
    }
}

enum Delivery {
    Sent,
    Refused(String),
}

impl Perform<Notifications> for Mailer {
    async fn perform(&self, due: Due<SendMail>) -> Result<Answer<Command>, Unanswered> {
        let mail = due.effect;
        let notification_id = mail.notification_id.clone();
        Ok(match self.send(&mail).await? {
            Delivery::Sent => {
                let message_id = mail.message_id();
                Answer { outcome: "sent".to_owned(), command: MailSent { notification_id, message_id }.into() }
            }
            Delivery::Refused(reason) => {
                Answer { outcome: "refused".to_owned(), command: MailRefused { notification_id, reason }.into() }
            }
        })
    }
}

fn mailbox(sender: &str) -> Result<Mailbox, MailerError> {
    sender.parse().map_err(|source| MailerError::Sender { sender: sender.to_owned(), source })
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// True if the server will never accept this mail: the mailbox is unknown, or the content is refused. Other refusals (of the
/// connection, of the sender's credentials) may be temporary.
fn is_final(error: &smtp::Error) -> bool {
    error.status().is_some_and(|code| (550..=554).contains(&u16::from(code)))
}
