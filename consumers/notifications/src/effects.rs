//! How mail leaves: as a file in a folder, or through a mail server. At least once, with the same Message-ID every time.
//!
//! The text comes from events, so it is trusted nowhere: headers are built and encoded by the mail library, and a file is named
//! by a UUID.

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
    folder::Folder,
    inbox::{Command, MailRefused, MailSent},
};

/// The host part of every Message-ID.
const MESSAGE_ID_HOST: &str = "musiccorp.example";
/// How long a mail server may take for one step of the conversation.
const SMTP_TIMEOUT: Duration = Duration::from_secs(20);

/// A mail that is to be sent.
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
    /// When the mail was asked for.
    pub requested_at_ms: i64,
}

impl Effect for SendMail {
    fn key(&self) -> String {
        self.notification_id.clone()
    }
}

impl SendMail {
    /// The Message-ID: the same for every attempt, and made of nothing but a UUID.
    #[must_use]
    pub fn message_id(&self) -> String {
        format!("<{}@{MESSAGE_ID_HOST}>", self.file_stem())
    }

    /// The notification's UUID. An id that is none is made into one, because it becomes a file name.
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

/// Where mail goes and whom it is from, where that is not the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder that each mail is written into as a file. [default: mail]
    #[arg(long, env = "DACAPO_MAIL_FOLDER", value_name = "DIR")]
    pub mail_folder: Option<PathBuf>,
    /// Mail server to hand mail to instead, unencrypted: a relay on the same machine or network.
    #[arg(long, env = "DACAPO_MAIL_SERVER", value_name = "HOST:PORT")]
    pub mail_server: Option<String>,
    /// Compose each mail and keep none, whatever else is set: for a run that keeps nothing.
    #[arg(long, env = "DACAPO_MAIL_DISCARD", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub mail_discard: Option<bool>,
    /// Whom mail is from; by default `MusicCorp <orders@musiccorp.example>`.
    #[arg(long, env = "DACAPO_MAIL_FROM", value_name = "MAILBOX")]
    pub mail_from: Option<String>,
}

/// Whom mail is from.
const DEFAULT_SENDER: &str = "MusicCorp <orders@musiccorp.example>";
/// The folder that mail is written into.
const DEFAULT_FOLDER: &str = "mail";

/// Where mail goes.
#[derive(Debug, Clone)]
pub struct Mailer {
    from: Mailbox,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Folder(Folder),
    Nowhere,
    Server(AsyncSmtpTransport<Tokio1Executor>),
}

/// A mailer that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    /// The sender is no mail address.
    #[error("the sender {sender:?} is no mail address, such as \"MusicCorp <orders@musiccorp.example>\"")]
    Sender {
        /// What was given.
        sender: String,
        /// What is wrong with it.
        #[source]
        source: lettre::address::AddressError,
    },
    /// The mail folder cannot be made.
    #[error("cannot make the mail folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mail server's address is none.
    #[error("the mail server {server:?} is no address, such as \"localhost:1025\"")]
    Server {
        /// What was given.
        server: String,
    },
}

impl Mailer {
    /// The mailer that the settings ask for: one that keeps none, else the server if one is named, else the folder.
    ///
    /// # Errors
    /// The sender, the server or the folder cannot be used.
    pub fn of(settings: &Settings) -> Result<Self, MailerError> {
        let sender = settings.mail_from.as_deref().unwrap_or(DEFAULT_SENDER);
        if settings.mail_discard == Some(true) {
            return Self::keeping_none(sender);
        }
        match &settings.mail_server {
            Some(server) => Self::to_server(sender, server),
            None => Self::into_folder(sender, settings.mail_folder.clone().unwrap_or_else(|| DEFAULT_FOLDER.into())),
        }
    }

    /// A mailer that writes each mail as a file `<uuid>.eml` into a folder, which is made if need be.
    ///
    /// # Errors
    /// The sender is no mail address, or the folder cannot be made.
    pub fn into_folder(sender: &str, folder: impl Into<PathBuf>) -> Result<Self, MailerError> {
        let from = mailbox(sender)?;
        let folder = folder.into();
        match Folder::open(&folder) {
            Ok(folder) => Ok(Self { from, way: Way::Folder(folder) }),
            Err(source) => Err(MailerError::Folder { folder, source }),
        }
    }

    /// A mailer that composes each mail and keeps none: for a run that keeps nothing. A file per mail would take longer to remove
    /// than the mail took to send.
    ///
    /// # Errors
    /// The sender is no mail address.
    pub fn keeping_none(sender: &str) -> Result<Self, MailerError> {
        Ok(Self { from: mailbox(sender)?, way: Way::Nowhere })
    }

    /// A mailer that speaks to a mail server, addressed as `host:port`. Unencrypted and without credentials: it is for a relay on
    /// the same machine or network, whose business encryption is.
    ///
    /// # Errors
    /// The sender is no mail address, or the server's address is none.
    pub fn to_server(sender: &str, server: &str) -> Result<Self, MailerError> {
        let address = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = address.filter(|(host, _)| !host.is_empty()) else {
            return Err(MailerError::Server { server: server.to_owned() });
        };
        let relay = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port)
            .timeout(Some(SMTP_TIMEOUT))
            .build();
        Ok(Self { from: mailbox(sender)?, way: Way::Server(relay) })
    }

    /// The mail as it goes over the wire.
    ///
    /// # Errors
    /// The text of the reason, if the customer's address is none: such a mail can never be sent.
    pub fn compose(&self, mail: &SendMail) -> Result<Message, String> {
        let address: Address = mail.email.parse().map_err(|error| format!("the address is none: {error}"))?;
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

    async fn hand_over(&self, mail: &SendMail) -> Result<Outcome, Unanswered> {
        let message = match self.compose(mail) {
            Ok(message) => message,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        match &self.way {
            Way::Folder(folder) => match folder.write(mail.file_stem(), message.formatted()).await {
                Ok(()) => Ok(Outcome::Sent),
                Err(error) => Err(Unanswered::new(format!("cannot write a mail into the folder: {error}"))),
            },
            Way::Nowhere => Ok(Outcome::Sent),
            Way::Server(server) => match server.send(message).await {
                Ok(_) => Ok(Outcome::Sent),
                Err(error) if is_final(&error) => Ok(Outcome::Refused(error.to_string())),
                Err(error) => Err(Unanswered::new(format!("the mail server did not take a mail: {error}"))),
            },
        }
    }
}

enum Outcome {
    Sent,
    Refused(String),
}

impl Perform<Notifications> for Mailer {
    async fn perform(&self, due: Due<SendMail>) -> Result<Answer<Command>, Unanswered> {
        let mail = due.effect;
        let notification_id = mail.notification_id.clone();
        Ok(match self.hand_over(&mail).await? {
            Outcome::Sent => {
                let message_id = mail.message_id();
                Answer { outcome: "sent".to_owned(), command: MailSent { notification_id, message_id }.into() }
            }
            Outcome::Refused(reason) => {
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

/// True if the server will never take this mail: it does not know the mailbox, or will not have the content. Other refusals (of
/// the whole connection, of the sender's credentials) may pass.
fn is_final(error: &smtp::Error) -> bool {
    error.status().is_some_and(|code| (550..=554).contains(&u16::from(code)))
}
