use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::properties::preamble_holds;
use super::*;

/// Version 2 with this command, family and rest.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// 192.0.2.7:51234 to 198.51.100.1:443.
const TCP4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 0x01, 0xbb];

/// The same with these TLVs behind.
fn v2_with(tlvs: &[&[u8]]) -> Vec<u8> {
    v2(0x21, 0x11, &[TCP4, &tlvs.concat()].concat())
}

/// The same, and its CRC32C in the middle of them.
fn v2_with_checksum(before: &[u8], behind: &[u8], wrong: u32) -> Vec<u8> {
    let checksum = |value: u32| tlv(CRC32C, &value.to_be_bytes());
    let blank = v2_with(&[before, &checksum(0), behind]);
    let right = crc32c([&blank, &[], &[]]);
    v2_with(&[before, &checksum(right ^ wrong), behind])
}

fn ssl(client: u8, parts: &[u8]) -> Vec<u8> {
    tlv(SSL, &[&[client, 0, 0, 0, 0], parts].concat())
}

/// What is said, in words: source, destination, `s` for secure, id.
#[track_caller]
fn check(bytes: &[u8], expected: Result<&str, Fault>) {
    // What follows is not touched, nor waited for.
    for behind in [
        &b""[..],
        b"G",
        b"PROXY TCP4 ",
        b"\x16\x03\x01\x02\0\x01",
        &[0; 300],
    ] {
        let seen = read(&[bytes, behind].concat());
        let seen = seen.map(|read| {
            let (length, said) = read.unwrap_or_else(|| panic!("{bytes:?} is not whole"));
            assert_eq!(length, bytes.len());
            let source = said
                .source
                .map_or_else(|| "-".to_owned(), |ip| ip.to_string());
            let port = said
                .destination
                .map_or_else(|| "-".to_owned(), |it| it.to_string());
            let secure = if said.secure { " s" } else { "" };
            let id = said.id.map_or_else(String::new, |id| format!(" {id}"));
            format!("{source} {port}{secure}{id}")
        });
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(seen.as_deref().map_err(|it| *it), expected, "{shown:?}");
    }
    preamble_holds(bytes);
}

#[track_caller]
fn check_line(text: &str, expected: Result<&str, Fault>) {
    check(text.as_bytes(), expected);
}

#[test]
fn version_1_is_read_in_one_way() {
    let good = |rest: &str, said: &str| check_line(&format!("PROXY {rest}\r\n"), Ok(said));
    good(
        "TCP4 192.0.2.7 198.51.100.1 51234 443",
        "192.0.2.7 198.51.100.1:443",
    );
    good(
        "TCP4 0.0.0.0 255.255.255.255 0 65535",
        "0.0.0.0 255.255.255.255:65535",
    );
    good(
        "TCP6 2001:db8::7 2001:DB8::1 51234 8443",
        "2001:db8::7 [2001:db8::1]:8443",
    );
    good("TCP6 ::ffff:192.0.2.7 ::1 1 2", "192.0.2.7 [::1]:2");
    let long = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    good(
        &format!("TCP6 {long} {long} 65535 65535"),
        &format!("{long} [{long}]:65535"),
    );
    good("UNKNOWN", "- -");
    good("UNKNOWN ", "- -");
    good("UNKNOWN TCP4 what  ever", "- -");
    // The longest of all, and one byte more.
    good(&format!("UNKNOWN {long} {long} 65535 65535"), "- -");
    check_line(
        &format!("PROXY UNKNOWN {long} {long} 65535 655350\r\n"),
        Err(Fault::Line),
    );

    for rest in [
        "",
        "TCP4",
        "TCP4 192.0.2.7 198.51.100.1 51234",
        "TCP4 192.0.2.7 198.51.100.1 51234 ",
        "TCP4 192.0.2.7 198.51.100.1 51234 443 ",
        "TCP4 192.0.2.7 198.51.100.1 51234 443 1",
        "TCP4  192.0.2.7 198.51.100.1 51234 443",
        " TCP4 192.0.2.7 198.51.100.1 51234 443",
        "TCP4\t192.0.2.7 198.51.100.1 51234 443",
        "tcp4 192.0.2.7 198.51.100.1 51234 443",
        "TCP5 192.0.2.7 198.51.100.1 51234 443",
        "UDP4 192.0.2.7 198.51.100.1 51234 443",
        "UNKNOWNS",
        // Each of both addresses is of the family.
        "TCP4 2001:db8::7 198.51.100.1 51234 443",
        "TCP4 192.0.2.7 2001:db8::1 51234 443",
        "TCP6 192.0.2.7 2001:db8::1 51234 443",
        "TCP6 2001:db8::7 198.51.100.1 51234 443",
        // Numbers are decimal, in their one form.
        "TCP4 192.0.2.07 198.51.100.1 51234 443",
        "TCP4 192.0.2.7 198.51.100.01 51234 443",
        "TCP4 192.0.2 198.51.100.1 51234 443",
        "TCP4 192.0.2.256 198.51.100.1 51234 443",
        "TCP4 0xc0.0.2.7 198.51.100.1 51234 443",
        "TCP4 192.0.2.7 198.51.100.1 051234 443",
        "TCP4 192.0.2.7 198.51.100.1 51234 0443",
        "TCP4 192.0.2.7 198.51.100.1 51234 00",
        "TCP4 192.0.2.7 198.51.100.1 +51234 443",
        "TCP4 192.0.2.7 198.51.100.1 51234 +443",
        "TCP4 192.0.2.7 198.51.100.1 -1 443",
        "TCP4 192.0.2.7 198.51.100.1 65536 443",
        "TCP4 192.0.2.7 198.51.100.1 51234 65536",
        "TCP6 [2001:db8::7] 2001:db8::1 51234 443",
        "TCP6 fe80::7%eth0 fe80::1 51234 443",
        "TCP6 2001:db8:::7 2001:db8::1 51234 443",
        "TCP6 2001:0db8:00000::7 2001:db8::1 51234 443",
        "TCP4 192.0.2.7,192.0.2.8 198.51.100.1 51234 443",
    ] {
        check_line(&format!("PROXY {rest}\r\n"), Err(Fault::Line));
    }
}

#[test]
fn a_line_ends_in_cr_lf_and_in_nothing_else() {
    for text in [
        "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\rx",
        "PROXY TCP4 192.0.2.7\r 198.51.100.1 51234 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1\0 51234 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\u{e9}\r\n",
        "PROXY UNKNOWN\nGET / HTTP/1.1\r\n",
    ] {
        check_line(text, Err(Fault::Line));
    }
}

#[test]
fn what_begins_otherwise_is_no_header() {
    for text in [
        "GET / HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "PUT / HTTP/1.1\r\n",
        "proxy TCP4 192.0.2.7 198.51.100.1 51234 443\r\n",
        " PROXY UNKNOWN\r\n",
        "\r\nPROXY UNKNOWN\r\n",
        "PROXY\r\n",
        "\r\n\r\n\r\n",
        "\x16\x03\x01\x02",
        "\0",
    ] {
        check_line(text, Err(Fault::Missing));
    }
    // The first byte that does not fit is enough.
    assert_eq!(read(b"G"), Err(Fault::Missing));
    assert_eq!(read(b"PRO"), Ok(None));
    assert_eq!(read(b""), Ok(None));
}

#[test]
fn version_2_is_read_in_one_way() {
    let tcp6 = [
        &"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..],
        &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets(),
        &[0xc8, 0x22, 0x20, 0xfb],
    ]
    .concat();
    let mapped = [
        &[0; 10][..],
        &[255, 255, 192, 0, 2, 7],
        &[0; 16],
        &[0, 1, 0, 2],
    ]
    .concat();
    check(&v2(0x21, 0x11, TCP4), Ok("192.0.2.7 198.51.100.1:443"));
    check(&v2(0x21, 0x21, &tcp6), Ok("2001:db8::7 [2001:db8::1]:8443"));
    check(&v2(0x21, 0x21, &mapped), Ok("192.0.2.7 [::]:2"));
    // The peer itself: it does not know its client, or its client has no address, or is the peer.
    check(&v2(0x21, 0x00, b""), Ok("- -"));
    check(&v2(0x21, 0x31, &[b'/'; 216]), Ok("- -"));
    for family in [0x00, 0x11, 0x12, 0x99] {
        check(&v2(0x20, family, b""), Ok("- -"));
        check(&v2(0x20, family, b"what ever"), Ok("- -"));
    }
    for family in [0x12, 0x22, 0x32] {
        check(&v2(0x21, family, &[0; 216]), Err(Fault::Datagrams));
    }
    for family in [0x01, 0x02, 0x10, 0x13, 0x20, 0x30, 0x41, 0xff] {
        check(&v2(0x21, family, &[0; 216]), Err(Fault::Block));
    }
    for command in [0x22, 0x2f, 0x11, 0x31, 0x00, 0x01] {
        check(&v2(command, 0x11, TCP4), Err(Fault::Block));
    }
    for (family, short) in [(0x11, 11), (0x21, 35), (0x31, 215), (0x11, 0)] {
        check(&v2(0x21, family, &vec![0; short]), Err(Fault::Block));
    }
}

#[test]
fn tlvs_are_whole_and_those_that_are_read_stand_there_once() {
    let id = tlv(UNIQUE_ID, b"proxy-1/42");
    let version = tlv(0x21, b"TLSv1.3");
    for (tlvs, said) in [
        (
            vec![tlv(0x01, b"h2"), tlv(0x04, b""), tlv(0xea, &[0; 20])],
            "192.0.2.7 198.51.100.1:443",
        ),
        (
            vec![tlv(0x04, b"x"), tlv(0x04, b"x")],
            "192.0.2.7 198.51.100.1:443",
        ),
        (vec![id.clone()], "192.0.2.7 198.51.100.1:443 proxy-1/42"),
        (
            vec![tlv(UNIQUE_ID, &[0xab; 128])],
            &format!("192.0.2.7 198.51.100.1:443 {}", "ab".repeat(128)),
        ),
        (
            vec![tlv(UNIQUE_ID, b"a\nb")],
            "192.0.2.7 198.51.100.1:443 610a62",
        ),
        (
            vec![tlv(UNIQUE_ID, "id-\u{e9}".as_bytes())],
            "192.0.2.7 198.51.100.1:443 id-\u{e9}",
        ),
        (vec![tlv(UNIQUE_ID, b"")], "192.0.2.7 198.51.100.1:443"),
        (vec![ssl(1, &version)], "192.0.2.7 198.51.100.1:443 s"),
        (
            vec![ssl(7, &version), id.clone()],
            "192.0.2.7 198.51.100.1:443 s proxy-1/42",
        ),
        (vec![ssl(0, b"")], "192.0.2.7 198.51.100.1:443"),
        (vec![ssl(6, b"")], "192.0.2.7 198.51.100.1:443"),
    ] {
        let tlvs: Vec<&[u8]> = tlvs.iter().map(Vec::as_slice).collect();
        check(&v2_with(&tlvs), Ok(said));
    }
    check(
        &v2(0x21, 0x00, &[ssl(1, b""), id.clone()].concat()),
        Ok("- - s proxy-1/42"),
    );
    check(
        &v2(0x21, 0x31, &[&[0; 216][..], &id].concat()),
        Ok("- - proxy-1/42"),
    );
    for tlvs in [
        vec![&b"\x04"[..]],
        vec![&b"\x04\0"[..]],
        vec![&b"\x04\0\x01"[..]],
        vec![&id[..id.len() - 1]],
        vec![&id, &b"\0\0"[..]],
        vec![&id, &id],
        vec![&tlv(UNIQUE_ID, &[b'x'; 129])],
        vec![&ssl(1, b""), &ssl(0, b"")],
        vec![&tlv(SSL, &[1, 0, 0, 0])],
        vec![&ssl(1, b"\x21")],
        vec![&ssl(1, &version[..4])],
        vec![&tlv(CRC32C, b"123")],
        vec![&tlv(CRC32C, b"12345")],
    ] {
        check(&v2_with(&tlvs), Err(Fault::Block));
    }
}

#[test]
fn a_block_has_a_largest_size() {
    let room = LARGEST_BLOCK - TCP4.len() - 3;
    check(
        &v2_with(&[&tlv(0x04, &vec![0; room])]),
        Ok("192.0.2.7 198.51.100.1:443"),
    );
    check(
        &v2_with(&[&tlv(0x04, &vec![0; room + 1])]),
        Err(Fault::Length),
    );
    // It is refused by what it announces.
    assert_eq!(read(&v2(0x21, 0x11, &[0; 3000])[..16]), Err(Fault::Length));
    check(&v2(0x20, 0x00, &vec![0; LARGEST_BLOCK]), Ok("- -"));
    check(
        &v2(0x20, 0x00, &vec![0; LARGEST_BLOCK + 1]),
        Err(Fault::Length),
    );
}

#[test]
fn a_checksum_that_is_there_matches() {
    // RFC 3720 appendix B.4.
    assert_eq!(crc32c([&[0; 32], &[], &[]]), 0x8a91_36aa);
    assert_eq!(crc32c([b"1234", b"", b"56789"]), 0xe306_9283);
    let id = tlv(UNIQUE_ID, b"x");
    for (before, behind) in [(&b""[..], &b""[..]), (&id, b""), (b"", &id)] {
        let said = if before.len() + behind.len() > 0 {
            "192.0.2.7 198.51.100.1:443 x"
        } else {
            "192.0.2.7 198.51.100.1:443"
        };
        check(&v2_with_checksum(before, behind, 0), Ok(said));
        for wrong in [1, 1 << 31, u32::MAX] {
            check(
                &v2_with_checksum(before, behind, wrong),
                Err(Fault::Checksum),
            );
        }
    }
    let twice = tlv(CRC32C, &[0; 4]);
    check(&v2_with(&[&twice, &twice]), Err(Fault::Checksum));
}

/// What another reader, the crate `ppp`, says about the header at the beginning: its length, source and destination.
fn oracle(bytes: &[u8]) -> Option<(usize, Option<IpAddr>, Option<SocketAddr>)> {
    let from_to = |source: IpAddr, destination: IpAddr, port| {
        let destination = SocketAddr::new(destination.to_canonical(), port);
        (Some(source.to_canonical()), Some(destination))
    };
    let (length, (source, destination)) = if bytes.starts_with(b"P") {
        let end = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
        let header = ppp::v1::Header::try_from(&bytes[..end]).ok()?;
        let said = match header.addresses {
            ppp::v1::Addresses::Unknown => (None, None),
            ppp::v1::Addresses::Tcp4(it) => from_to(
                it.source_address.into(),
                it.destination_address.into(),
                it.destination_port,
            ),
            ppp::v1::Addresses::Tcp6(it) => from_to(
                it.source_address.into(),
                it.destination_address.into(),
                it.destination_port,
            ),
        };
        (end, said)
    } else {
        let header = ppp::v2::Header::try_from(bytes).ok()?;
        let said = match header.addresses {
            ppp::v2::Addresses::IPv4(it) => from_to(
                it.source_address.into(),
                it.destination_address.into(),
                it.destination_port,
            ),
            ppp::v2::Addresses::IPv6(it) => from_to(
                it.source_address.into(),
                it.destination_address.into(),
                it.destination_port,
            ),
            ppp::v2::Addresses::Unspecified | ppp::v2::Addresses::Unix(_) => (None, None),
        };
        (header.header.len(), said)
    };
    Some((length, source, destination))
}

/// Whatever is accepted here, the other reader accepts too, and reads the same. It reads what the specification says is
/// not read: the block of LOCAL, and more words behind UNKNOWN than there are addresses and ports.
#[track_caller]
fn agrees(bytes: &[u8]) {
    preamble_holds(bytes);
    let is_local = bytes.get(12) == Some(&0x20);
    let is_unread =
        bytes.starts_with(b"PROXY UNKNOWN ") && bytes.split(|it| *it == b' ').count() > 6;
    if is_local || is_unread {
        return;
    }
    match read(bytes) {
        Ok(Some((length, said))) => {
            let theirs = oracle(bytes).expect("the other reader refuses it");
            assert_eq!((length, said.source, said.destination), theirs);
        }
        Ok(None) => assert_eq!(oracle(bytes), None),
        Err(_) => {}
    }
}

prop_compose! {
    /// Lines that are nearly right.
    fn lines()(
        start in "PROXY |PROXY|PRO|proxy ",
        family in "TCP4|TCP6|UNKNOWN|TCP",
        words in prop::collection::vec(
            "( )(192\\.0\\.2\\.[0-9]{1,3}|2001:db8::[0-9a-f]{1,5}|::ffff:1\\.2\\.3\\.4|0?[0-9]{1,5}|\\+1||x)",
            0..6,
        ),
        end in "\r\n|\n|\r|\r\nGET / HTTP/1.1\r\n|\0\r\n|",
    ) -> Vec<u8> {
        format!("{start}{family}{}{end}", words.concat()).into_bytes()
    }
}

prop_compose! {
    /// Blocks that are nearly right.
    fn blocks()(
        command in prop::sample::select(vec![0x20, 0x21, 0x21, 0x21, 0x22, 0x11]),
        family in prop::sample::select(vec![0x00, 0x11, 0x11, 0x21, 0x31, 0x12, 0x10]),
        addresses in prop::sample::select(vec![0, 12, 12, 36, 216, 11]),
        tlvs in prop::collection::vec(
            (prop::sample::select(vec![CRC32C, UNIQUE_ID, SSL, 0x04, 0xea]), prop::collection::vec(any::<u8>(), 0..12)),
            0..4,
        ),
        checksum in any::<bool>(),
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        behind in prop::collection::vec(any::<u8>(), 0..8),
    ) -> Vec<u8> {
        let tlvs: Vec<u8> = tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
        let rest = [vec![7; addresses], tlvs].concat();
        let mut bytes = if checksum {
            let blank = v2(command, family, &[&rest[..], &tlv(CRC32C, &[0; 4])].concat());
            let right = crc32c([&blank, &[], &[]]).to_be_bytes();
            v2(command, family, &[&rest[..], &tlv(CRC32C, &right)].concat())
        } else {
            v2(command, family, &rest)
        };
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        [bytes, behind].concat()
    }
}

proptest! {
    #[test]
    fn lines_are_read_as_another_reader_does(bytes in lines()) {
        agrees(&bytes);
    }

    #[test]
    fn blocks_are_read_as_another_reader_does(bytes in blocks()) {
        agrees(&bytes);
    }

    #[test]
    fn any_bytes_hold(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        agrees(&bytes);
        agrees(&[SIGNATURE, &bytes].concat());
        agrees(&[LINE, &bytes].concat());
    }
}

/// Sends pieces with pauses, and gives what is received, and what is left on the stream.
async fn received(pieces: &[&[u8]], pause: Duration) -> (Result<Preamble, Option<Fault>>, Vec<u8>) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut near = Stream::Unix(near);
    let sending = async {
        for piece in pieces {
            far.write_all(piece).await.unwrap();
            tokio::time::sleep(pause).await;
        }
        far.shutdown().await.unwrap();
    };
    let reading = async {
        let said = receive(&near).await;
        let mut rest = Vec::new();
        if said.is_ok() {
            near.read_to_end(&mut rest).await.unwrap();
        }
        (said, rest)
    };
    tokio::join!(sending, reading).1
}

#[tokio::test]
async fn what_follows_a_header_is_left_on_the_stream() {
    let block = v2_with(&[&tlv(0x04, &[7; 700]), &tlv(UNIQUE_ID, b"x")]);
    for header in [
        &b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"[..],
        &block,
    ] {
        for behind in [&b""[..], b"G", &[9; 5000]] {
            let all = [header, behind].concat();
            let middle = header.len() / 2;
            for pieces in [
                vec![&all[..]],
                vec![header, behind],
                vec![&all[..middle], &all[middle..]],
                vec![&all[..header.len() - 1], &all[header.len() - 1..]],
                all[..header.len() + 1.min(behind.len())]
                    .chunks(1)
                    .chain([&all[header.len() + 1.min(behind.len())..]])
                    .collect(),
            ] {
                let (said, rest) = received(&pieces, Duration::ZERO).await;
                assert_eq!(said.unwrap().source, "192.0.2.7".parse().ok());
                assert!(rest == behind, "{} of {}", rest.len(), behind.len());
            }
        }
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_is_told_from_one_that_ends() {
    let pause = Duration::from_millis(1);
    assert_eq!(received(&[], pause).await.0, Err(None));
    for part in [
        &b"P"[..],
        b"PROXY UNKNOWN\r",
        b"\r\n\r\n",
        &v2_with(&[])[..20],
    ] {
        assert_eq!(received(&[part], pause).await.0, Err(Some(Fault::Ended)));
    }
    let refused = received(&[b"PROXY ", b"TCP7 x\r\n"], pause).await.0;
    assert_eq!(refused, Err(Some(Fault::Line)));
}
