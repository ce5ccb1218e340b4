//! Invalid requests end their connection, never the broker.

use crate::support::*;
use embedded::broker::{Broker, BrokerConfig, BrokerLimits};
use std::io::{Read, Write};
use std::net::TcpStream;

fn exchange(broker: &Broker, frame: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.addr()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(frame).unwrap();
    let mut response = Vec::new();
    // A reset is a valid outcome, at once or later: the broker closed the connection with unread bytes.
    drop(stream.shutdown(std::net::Shutdown::Write));
    drop(stream.read_to_end(&mut response));
    response
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
fn the_response_to_an_unsupported_version_of_api_versions_has_version_0() {
    let broker = start();
    let response = exchange(&broker, &request(18, 99, &[]));
    assert_eq!(i32::from_be_bytes(response[4..8].try_into().unwrap()), 7);
    assert_eq!(i16::from_be_bytes(response[8..10].try_into().unwrap()), 35);
    assert!(i32::from_be_bytes(response[10..14].try_into().unwrap()) > 20);
}

#[test]
fn offsets_are_listed_in_older_versions() {
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
        let response = exchange(&broker, &request(2, version, &body));
        assert!(response.len() > 30, "version {version}: {response:?}");
    }
}

#[test]
fn malformed_frames_end_only_their_connection() {
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
fn a_list_longer_than_its_frame_reserves_no_memory() {
    let broker = start();
    for (key, version) in [(3_i16, 1_i16), (19, 2), (20, 1), (42, 0), (15, 0)] {
        let response = exchange(&broker, &request(key, version, &i32::MAX.to_be_bytes()));
        assert_eq!(response, Vec::<u8>::new());
    }
    still_serves(&broker, "after");
}

#[test]
fn a_request_over_the_limit_is_not_read() {
    let limits = BrokerLimits { request_bytes_max: 10_000, ..BrokerLimits::default() };
    let broker = Broker::start(BrokerConfig { limits, ..BrokerConfig::default() }).unwrap();
    let mut frame = 20_000_i32.to_be_bytes().to_vec();
    frame.extend_from_slice(&[0; 20_000]);
    assert_eq!(exchange(&broker, &frame), Vec::<u8>::new());
    still_serves(&broker, "after");
}

#[test]
fn connections_beyond_the_limit_are_closed_and_the_others_stay() {
    let limits = BrokerLimits { connections_max: 1, ..BrokerLimits::default() };
    let broker = Broker::start(BrokerConfig { limits, ..BrokerConfig::default() }).unwrap();
    let mut first = TcpStream::connect(broker.addr()).unwrap();
    first.set_read_timeout(Some(TIMEOUT)).unwrap();
    first.write_all(&request(18, 0, &[])).unwrap();
    let mut head = [0; 8];
    first.read_exact(&mut head).unwrap();
    let mut second = TcpStream::connect(broker.addr()).unwrap();
    second.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(second.read(&mut head).unwrap_or(0), 0);
}

#[test]
fn the_broker_stops_reading_from_a_client_that_reads_no_responses_and_serves_the_others() {
    /// Far more than the socket buffers of both sides hold.
    const MORE_THAN_BUFFERED: usize = 256 << 20;
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
        assert!(written < MORE_THAN_BUFFERED, "the broker keeps reading requests whose responses it cannot send");
    };
    assert!(matches!(refused.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{refused}");
    still_serves(&broker, "t");
}
