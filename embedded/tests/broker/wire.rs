//! What no well-behaved client sends: the connection ends, the broker does not.

use crate::support::*;
use embedded::broker::{Broker, BrokerConfig, Limits};
use std::io::{Read, Write};
use std::net::TcpStream;

fn exchange(broker: &Broker, frame: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(frame).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    // A reset is an answer too: the broker had more to read and did not want it.
    drop(stream.read_to_end(&mut answer));
    answer
}

fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&i32::try_from(10 + body.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&7_i32.to_be_bytes());
    frame.extend_from_slice(&(-1_i16).to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

fn still_serves(broker: &Broker, topic: &str) {
    create_topic(broker, topic, 1);
    send(&producer(broker, &[]), topic, 0, numbered(0..3));
    assert_eq!(read_all(broker, topic, 0, "read_committed").len(), 3);
}

#[test]
fn an_unsupported_version_of_api_versions_is_answered_in_version_0() {
    let broker = start();
    let answer = exchange(&broker, &request(18, 99, &[]));
    assert_eq!(i32::from_be_bytes(answer[4..8].try_into().unwrap()), 7);
    assert_eq!(i16::from_be_bytes(answer[8..10].try_into().unwrap()), 35);
    assert!(i32::from_be_bytes(answer[10..14].try_into().unwrap()) > 20);
}

#[test]
fn offsets_are_listed_in_the_versions_of_older_clients() {
    let broker = start();
    create_topic(&broker, "t", 1);
    for version in 1..=5_i16 {
        let mut body = (-1_i32).to_be_bytes().to_vec();
        if version >= 2 {
            body.push(1);
        }
        body.extend_from_slice(&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
        if version >= 4 {
            body.extend_from_slice(&(-1_i32).to_be_bytes());
        }
        body.extend_from_slice(&(-2_i64).to_be_bytes());
        let answer = exchange(&broker, &request(2, version, &body));
        assert!(answer.len() > 30, "version {version}: {answer:?}");
    }
}

#[test]
fn malformed_frames_end_their_connection_only() {
    let broker = start();
    let frames: Vec<Vec<u8>> = vec![
        vec![0xff, 0xff, 0xff, 0xff],
        vec![0x7f, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 3, 1, 2, 3],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        request(9_999, 0, &[]),
        request(3, 99, &[]),
        request(3, 1, &[]),
        request(3, 1, &[0, 0, 0, 2, 0, 1]),
        request(0, 3, &[0xff; 40]),
        request(1, 4, &[0x7f; 200]),
        request(11, 5, &[0; 3]),
    ];
    for frame in frames {
        assert_eq!(exchange(&broker, &frame), Vec::<u8>::new(), "{frame:?}");
    }
    still_serves(&broker, "after");
}

#[test]
fn a_list_that_announces_more_than_the_frame_holds_costs_no_memory() {
    let broker = start();
    for (key, version) in [(3_i16, 1_i16), (19, 2), (20, 1), (42, 0), (15, 0)] {
        let answer = exchange(&broker, &request(key, version, &i32::MAX.to_be_bytes()));
        assert_eq!(answer, Vec::<u8>::new());
    }
    still_serves(&broker, "after");
}

#[test]
fn a_request_over_the_limit_is_not_read() {
    let limits = Limits { request_bytes_max: 10_000, ..Limits::default() };
    let broker = Broker::start(BrokerConfig { limits, ..BrokerConfig::default() }).unwrap();
    let mut frame = 20_000_i32.to_be_bytes().to_vec();
    frame.extend_from_slice(&[0; 20_000]);
    assert_eq!(exchange(&broker, &frame), Vec::<u8>::new());
    still_serves(&broker, "after");
}

#[test]
fn connections_beyond_the_limit_are_closed_and_others_go_on() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let broker = Broker::start(BrokerConfig { limits, ..BrokerConfig::default() }).unwrap();
    let mut first = TcpStream::connect(broker.addr()).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    first.write_all(&request(18, 0, &[])).unwrap();
    let mut head = [0; 8];
    first.read_exact(&mut head).unwrap();
    let mut second = TcpStream::connect(broker.addr()).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(second.read(&mut head).unwrap_or(0), 0);
}

#[test]
fn a_client_that_takes_no_answers_is_not_read_from_either_and_others_are_served() {
    /// Far more than the sockets of both sides hold.
    const ENDLESS: usize = 256 << 20;
    let broker = start();
    let mut stream = TcpStream::connect(broker.addr()).unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let requests = request(18, 0, &[]).repeat(10_000);
    let mut written = 0;
    let refused = loop {
        match stream.write(&requests) {
            Ok(bytes) => written += bytes,
            Err(error) => break error,
        }
        assert!(written < ENDLESS, "the broker goes on reading what it cannot answer");
    };
    assert!(matches!(refused.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{refused}");
    still_serves(&broker, "t");
}
