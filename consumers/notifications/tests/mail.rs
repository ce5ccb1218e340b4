//! Sending mail: files in a folder, a conversation with a mail server, and hostile text in both.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use notifications::{
    effects::{Mailer, MailerError, SendMail},
    inbox::Command,
};
use runtime::{Due, Perform};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

const SENDER: &str = "MusicCorp <orders@musiccorp.example>";
const ID: &str = "0f6c2a83-5d17-5b9e-a4c0-7be31d92f658";

fn mail() -> SendMail {
    SendMail {
        notification_id: ID.to_owned(),
        name: "Inés Calderón".to_owned(),
        email: "ines.calderon@example.org".to_owned(),
        subject: "Your records are on their way".to_owned(),
        body: "Hello Inés,\n\nMusicCorp\n".to_owned(),
        requested_at_ms: 1_795_248_005_300,
    }
}

fn due(effect: SendMail) -> Due<SendMail> {
    Due { key: "order-1".to_owned(), correlation_id: "order-1".to_owned(), effect, attempt: 0 }
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_mail_becomes_one_complete_file_however_often_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mailer = Mailer::into_folder(SENDER, folder.path().join("mail")).unwrap();
    let first = mailer.perform(due(mail())).await.unwrap();
    let text = fs::read_to_string(folder.path().join("mail").join(format!("{ID}.eml"))).unwrap();
    assert_eq!(mailer.perform(due(mail())).await.unwrap(), first);
    assert_eq!(files(&folder.path().join("mail")), [format!("{ID}.eml")]);
    assert_eq!(fs::read_to_string(folder.path().join("mail").join(format!("{ID}.eml"))).unwrap(), text);
    for header in [
        "From: MusicCorp <orders@musiccorp.example>\r\n",
        "To: =?utf-8?b?SW7DqXMgQ2FsZGVyw7Nu?= <ines.calderon@example.org>\r\n",
        "Subject: Your records are on their way\r\n",
        &format!("Message-ID: <{ID}@musiccorp.example>\r\n"),
        "Date: Sat, 21 Nov 2026 08:00:05 +0000\r\n",
    ] {
        assert!(text.contains(header), "{header:?} is not in\n{text}");
    }
    let Command::MailSent(answer) = first.command else { panic!("expected MailSent, got {:?}", first.command) };
    assert_eq!((answer.notification_id.as_str(), answer.message_id), (ID, format!("<{ID}@musiccorp.example>")));
}

#[tokio::test]
async fn text_from_events_reaches_neither_a_path_nor_a_header() {
    let folder = tempfile::tempdir().unwrap();
    let mailer = Mailer::into_folder(SENDER, folder.path()).unwrap();
    let hostile = SendMail {
        notification_id: "../../etc/passwd".to_owned(),
        name: "x\r\nBcc: victim@example.org".to_owned(),
        subject: "hello\r\n\r\n<script>".to_owned(),
        ..mail()
    };
    mailer.perform(due(hostile)).await.unwrap();
    let names = files(folder.path());
    assert_eq!(names.len(), 1);
    assert!(names[0].ends_with(".eml") && names[0].len() == ID.len() + 4, "{names:?}");
    let text = fs::read_to_string(folder.path().join(&names[0])).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
    assert!(head.contains("Subject: hello    <script>"), "{head}");
}

#[tokio::test]
async fn an_invalid_address_is_refused_permanently() {
    let folder = tempfile::tempdir().unwrap();
    let mailer = Mailer::into_folder(SENDER, folder.path()).unwrap();
    let answer = mailer.perform(due(SendMail { email: "nowhere".to_owned(), ..mail() })).await.unwrap();
    assert_eq!(answer.outcome, "refused");
    assert!(matches!(answer.command, Command::MailRefused(_)), "{:?}", answer.command);
    assert!(files(folder.path()).is_empty());
}

#[tokio::test]
async fn a_discarded_mail_is_composed_and_answered_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Mailer::into_folder(SENDER, folder.path()).unwrap();
    let none = Mailer::discarding(SENDER).unwrap();
    assert_eq!(none.perform(due(mail())).await.unwrap(), kept.perform(due(mail())).await.unwrap());
    let refused = none.perform(due(SendMail { email: "nowhere".to_owned(), ..mail() })).await.unwrap();
    assert_eq!(refused.outcome, "refused");
}

#[tokio::test]
async fn a_missing_folder_leaves_the_mail_due() {
    let folder = tempfile::tempdir().unwrap();
    let mailer = Mailer::into_folder(SENDER, folder.path().join("mail")).unwrap();
    fs::remove_dir(folder.path().join("mail")).unwrap();
    let unanswered = mailer.perform(due(mail())).await.unwrap_err();
    assert!(unanswered.reason.starts_with("cannot write a mail to the folder"), "{}", unanswered.reason);
}

#[test]
fn an_invalid_sender_or_server_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Mailer::into_folder("nobody", folder.path()), Err(MailerError::Sender { .. })));
    for server in ["localhost", ":25", "localhost:smtp"] {
        assert!(matches!(Mailer::to_server(SENDER, server), Err(MailerError::Server { .. })), "{server}");
    }
}

/// A mail server for one conversation: replies to `RCPT` with `rcpt` and returns the transcript.
async fn converse(listener: TcpListener, rcpt: &'static str) -> String {
    let (stream, _) = listener.accept().await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut transcript = String::new();
    let mut in_data = false;
    write.write_all(b"220 test ESMTP\r\n").await.unwrap();
    while let Ok(Some(line)) = lines.next_line().await {
        transcript.push_str(&line);
        transcript.push('\n');
        let reply = match line.split([' ', ':']).next().unwrap_or_default() {
            "." => {
                in_data = false;
                "250 accepted\r\n"
            }
            _ if in_data => continue,
            "RCPT" => rcpt,
            "DATA" => {
                in_data = true;
                "354 continue\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        if write.write_all(reply.as_bytes()).await.is_err() {
            break;
        }
    }
    transcript
}

async fn send_to_server(rcpt: &'static str) -> (Result<runtime::Answer<Command>, runtime::Unanswered>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mailer = Mailer::to_server(SENDER, &listener.local_addr().unwrap().to_string()).unwrap();
    let server = tokio::spawn(converse(listener, rcpt));
    let answer = mailer.perform(due(mail())).await;
    drop(mailer);
    (answer, server.await.unwrap())
}

#[tokio::test]
async fn a_mail_server_gets_the_mail() {
    let (answer, transcript) = send_to_server("250 ok\r\n").await;
    assert_eq!(answer.unwrap().outcome, "sent");
    assert!(transcript.contains("RCPT TO:<ines.calderon@example.org>"), "{transcript}");
    assert!(transcript.contains(&format!("Message-ID: <{ID}@musiccorp.example>")), "{transcript}");
}

#[tokio::test]
async fn an_unknown_mailbox_is_refused_permanently() {
    let (answer, _) = send_to_server("550 no such mailbox\r\n").await;
    assert_eq!(answer.unwrap().outcome, "refused");
}

#[tokio::test]
async fn a_busy_server_leaves_the_mail_due() {
    let (answer, _) = send_to_server("451 try again later\r\n").await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn an_unreachable_server_leaves_the_mail_due() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mailer = Mailer::to_server(SENDER, &listener.local_addr().unwrap().to_string()).unwrap();
    drop(listener);
    assert!(mailer.perform(due(mail())).await.is_err());
}
