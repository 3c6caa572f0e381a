//! The header that a load balancer puts in front of a connection to name its client: PROXY protocol, versions 1 and 2.
//! [`read`] decides what bytes mean, [`receive`] waits for them. Whoever sends one must be allowed to: that is decided
//! before, when the connection is accepted.
//!
//! A header is read in one way, or refused: who could send one that this gateway and its sender read differently could
//! choose the address that it is known by. What "section" refers to is HAProxy's `proxy-protocol.txt`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::stream::Stream;

/// How version 1 begins (section 2.1).
const LINE: &[u8] = b"PROXY ";
/// The longest line of version 1, with its CR LF (section 2.1).
const LONGEST_LINE: usize = 107;
/// How version 2 begins (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The most bytes behind the fixed 16 of version 2. The largest addresses take 216 of them.
const LARGEST_BLOCK: usize = 2048;
/// Two paths of Unix sockets.
const UNIX_ADDRESSES: usize = 216;
/// The longest `UNIQUE_ID` (section 2.2.5).
const LONGEST_ID: usize = 128;
/// How many bytes are looked at in one go: most headers are shorter.
const PIECE: usize = 256;

/// Types of the TLVs that say something here (section 2.2); all others are skipped.
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
/// The bit of `SSL` that says that the client uses TLS (section 2.2.6).
const CLIENT_SSL: u8 = 0x01;

/// What a header says about the connection that it precedes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Preamble {
    /// The client's address; `None` where the client is the peer itself.
    pub(crate) source: Option<IpAddr>,
    /// The address and port that the client connected to.
    pub(crate) destination: Option<SocketAddr>,
    /// Whether the client uses TLS, which the sender has ended.
    pub(crate) secure: bool,
    /// The sender's id of the connection: its text, or hexadecimal digits where it is none.
    pub(crate) id: Option<Box<str>>,
}

/// Why a connection has no valid header.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    /// It begins with something else.
    Missing,
    /// The line of version 1 is malformed.
    Line,
    /// The block of version 2 is malformed.
    Block,
    /// Version 2 announces more than [`LARGEST_BLOCK`].
    Length,
    /// The CRC32C does not match.
    Checksum,
    /// It announces datagrams.
    Datagrams,
    /// The peer closed within it.
    Ended,
    /// It was not complete in time.
    Late,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the connection does not begin with one",
            Self::Line => "its line (version 1) is malformed",
            Self::Block => "it is malformed (version 2)",
            Self::Length => "it is longer than 2 KiB",
            Self::Checksum => "its CRC32C does not match",
            Self::Datagrams => "it announces datagrams",
            Self::Ended => "the connection ended within it",
            Self::Late => "it did not arrive in time",
        })
    }
}

/// Reads a header at the beginning of `bytes`: how long it is, and what it says; `None` where more bytes are needed.
/// Then all of `bytes` belong to the header.
///
/// # Errors
/// No valid header begins with these bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(usize, Preamble)>, Fault> {
    let begins_with = |start: &[u8]| {
        let seen = bytes.len().min(start.len());
        bytes.get(..seen) == start.get(..seen)
    };
    if begins_with(SIGNATURE) {
        block(bytes)
    } else if begins_with(LINE) {
        line(bytes)
    } else {
        Err(Fault::Missing)
    }
}

/// Version 1: `PROXY TCP4 192.0.2.7 198.51.100.1 51234 443`, CR, LF. Words are separated by single spaces; numbers have
/// no leading zeros.
fn line(bytes: &[u8]) -> Result<Option<(usize, Preamble)>, Fault> {
    let end = bytes.iter().position(|byte| !(b' '..=b'~').contains(byte));
    let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    if text.len() + 2 > LONGEST_LINE {
        return Err(Fault::Line);
    }
    match rest {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => {}
        _ => return Err(Fault::Line),
    }
    let told = text.get(LINE.len()..).unwrap_or_default();
    let told = std::str::from_utf8(told).map_err(|_| Fault::Line)?;
    let said = said_in_line(told).ok_or(Fault::Line)?;
    Ok(Some((text.len() + 2, said)))
}

/// What stands behind `PROXY`; `None` where it is malformed.
fn said_in_line(text: &str) -> Option<Preamble> {
    let words: Vec<&str> = text.splitn(6, ' ').collect();
    let (source, destination, from, to) = match *words {
        // The rest of the line is ignored.
        ["UNKNOWN", ..] => return Some(Preamble::default()),
        ["TCP4", source, destination, from, to] => {
            let v4 = |text: &str| text.parse().ok().map(IpAddr::V4);
            (v4(source)?, v4(destination)?, from, to)
        }
        ["TCP6", source, destination, from, to] => {
            let v6 = |text: &str| text.parse().ok().map(IpAddr::V6);
            (v6(source)?, v6(destination)?, from, to)
        }
        _ => return None,
    };
    port(from)?;
    Some(connected(source, destination, port(to)?))
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// A connection between these addresses, to this port.
fn connected(source: IpAddr, destination: IpAddr, port: u16) -> Preamble {
    Preamble {
        source: Some(source.to_canonical()),
        destination: Some(SocketAddr::new(destination.to_canonical(), port)),
        ..Preamble::default()
    }
}

/// Version 2: signature, version and command, family and protocol, the length of the rest; then addresses and TLVs.
fn block(bytes: &[u8]) -> Result<Option<(usize, Preamble)>, Fault> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *head;
    let is_proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Fault::Block),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LARGEST_BLOCK {
        return Err(Fault::Length);
    }
    let Some(told) = rest.get(..length) else {
        return Ok(None);
    };
    let whole = head.len() + length;
    if !is_proxied {
        // LOCAL: the sender itself connects. Section 2.2: all of the block is discarded.
        return Ok(Some((whole, Preamble::default())));
    }
    let (mut said, tlvs) = addresses(family, told)?;
    let header = bytes.get(..whole).unwrap_or_default();
    extras(header, tlvs, &mut said)?;
    Ok(Some((whole, said)))
}

/// The addresses of a family, and the TLVs behind them.
fn addresses(family: u8, told: &[u8]) -> Result<(Preamble, &[u8]), Fault> {
    match family {
        // UNSPEC: the sender does not know, or cannot say.
        0x00 => Ok((Preamble::default(), told)),
        0x11 => {
            let (told, rest) = told.split_first_chunk::<12>().ok_or(Fault::Block)?;
            let [a, b, c, d, e, f, g, h, _, _, high, low] = *told;
            let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            let port = u16::from_be_bytes([high, low]);
            Ok((connected(source.into(), destination.into(), port), rest))
        }
        0x21 => {
            let (source, rest) = told.split_first_chunk::<16>().ok_or(Fault::Block)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(Fault::Block)?;
            let ([_, _, high, low], rest) = rest.split_first_chunk().ok_or(Fault::Block)?;
            let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination));
            let port = u16::from_be_bytes([*high, *low]);
            Ok((connected(source.into(), destination.into(), port), rest))
        }
        // A client of the sender's on a Unix socket: it has no address.
        0x31 => {
            let rest = told.get(UNIX_ADDRESSES..).ok_or(Fault::Block)?;
            Ok((Preamble::default(), rest))
        }
        0x12 | 0x22 | 0x32 => Err(Fault::Datagrams),
        _ => Err(Fault::Block),
    }
}

/// Reads the TLVs of a header into what is said. Those that are read stand there once.
fn extras(header: &[u8], mut tlvs: &[u8], said: &mut Preamble) -> Result<(), Fault> {
    let mut seen = [(CRC32C, false), (UNIQUE_ID, false), (SSL, false)];
    while let Some((kind, value, rest)) = next_tlv(tlvs)? {
        let known = seen.iter_mut().find(|(known, _)| *known == kind);
        if known.is_some_and(|(_, seen)| std::mem::replace(seen, true)) {
            return Err(Fault::Block);
        }
        match kind {
            CRC32C => {
                let expected = value
                    .first_chunk::<4>()
                    .filter(|it| it.len() == value.len());
                let expected = u32::from_be_bytes(*expected.ok_or(Fault::Block)?);
                // The place of the value: its own four bytes count as zeros (section 2.2.3).
                let at = header.len() - rest.len() - 4;
                let before = header.get(..at).unwrap_or_default();
                if crc32c([before, &[0; 4], rest]) != expected {
                    return Err(Fault::Checksum);
                }
            }
            UNIQUE_ID if value.len() > LONGEST_ID => return Err(Fault::Block),
            UNIQUE_ID => said.id = Some(id(value)).filter(|id| !id.is_empty()),
            SSL => {
                let (told, mut parts) = value.split_first_chunk::<5>().ok_or(Fault::Block)?;
                while let Some((_, _, rest)) = next_tlv(parts)? {
                    parts = rest;
                }
                said.secure = told.first().is_some_and(|client| client & CLIENT_SSL != 0);
            }
            _ => {}
        }
        tlvs = rest;
    }
    Ok(())
}

/// The type of a TLV, its value, and what follows it.
type Tlv<'b> = (u8, &'b [u8], &'b [u8]);

/// The first TLV; `None` where there is nothing left.
fn next_tlv(bytes: &[u8]) -> Result<Option<Tlv<'_>>, Fault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (head, rest) = bytes.split_first_chunk::<3>().ok_or(Fault::Block)?;
    let [kind, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, rest) = rest.split_at_checked(length).ok_or(Fault::Block)?;
    Ok(Some((kind, value, rest)))
}

/// An id as text.
fn id(value: &[u8]) -> Box<str> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(char::is_control) => text.into(),
        Ok(_) | Err(_) => {
            let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            digits.into()
        }
    }
}

/// The CRC32C (RFC 9260 appendix A) of these bytes, one part after another.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let bytes = parts.into_iter().flatten();
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// Waits for a header and takes it from the stream, and not one byte of what follows.
///
/// # Errors
/// There is no valid one; `None` where the peer closed without a byte, as probes do.
pub(crate) async fn receive(stream: &Stream) -> Result<Preamble, Option<Fault>> {
    let mut held: Vec<u8> = Vec::new();
    loop {
        let mut piece = [0; PIECE];
        let before = held.len();
        let ended = |_: io::Error| (before > 0).then_some(Fault::Ended);
        let count = stream.peek(&mut piece).await.map_err(ended)?;
        if count == 0 {
            return Err((before > 0).then_some(Fault::Ended));
        }
        held.extend_from_slice(piece.get(..count).unwrap_or_default());
        let read = read(&held).map_err(Some)?;
        // What belongs to the header is taken at once: a socket with unread bytes does not tell when its peer closes.
        let length = read.as_ref().map_or(held.len(), |(length, _)| *length);
        stream.skip(length - before).map_err(ended)?;
        if let Some((_, said)) = read {
            return Ok(said);
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
#[cfg(test)]
mod tests;
