//! Decodes content codings (RFC 9110 section 8.4.1) of documents: some servers use one although `identity` was
//! requested. The decoded size is limited, however small the input.

use std::io::{self, Read};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use ruzstd::decoding::StreamingDecoder;

use super::{FetchProblem, MAX_BYTES};

/// The limit for stacked codings.
const MOST: usize = 2;
/// The largest zstd window, as limited by RFC 9659.
const WINDOW: u64 = 8 << 20;

/// Why a document could not be decoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCoding {
    /// An unknown coding.
    #[error(
        "the content coding {0:?} is not known; identity was requested, and gzip, deflate, br and zstd are accepted"
    )]
    Unknown(String),
    /// Too many stacked codings.
    #[error("more than {MOST} content codings")]
    TooMany,
    /// The bytes are not valid in that coding.
    #[error("the content coding {0:?} cannot be undone: {1}")]
    Damaged(String, io::Error),
}

/// A document's bytes without the codings that its header fields name.
///
/// # Errors
/// `Coding`, or `TooLarge` where the decoded document exceeds its limit.
pub(super) fn undo(headers: &HeaderMap, mut bytes: Bytes) -> Result<Bytes, FetchProblem> {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let codings: Vec<String> = lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|coding| String::from_utf8_lossy(coding.trim_ascii()).to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    if codings.len() > MOST {
        return Err(BadCoding::TooMany.into());
    }
    // The coding that was applied last is removed first.
    for coding in codings.into_iter().rev() {
        bytes = decode(coding, &bytes)?.into();
    }
    Ok(bytes)
}

fn decode(coding: String, coded: &[u8]) -> Result<Vec<u8>, FetchProblem> {
    let read = match coding.as_str() {
        "gzip" | "x-gzip" => all(MultiGzDecoder::new(coded)),
        // Some servers send it without the zlib wrapper (RFC 9110 section 8.4.1.2).
        "deflate" if is_zlib(coded) => all(ZlibDecoder::new(coded)),
        "deflate" => all(DeflateDecoder::new(coded)),
        "br" => all(Decompressor::new(coded, 4096)),
        "zstd" => StreamingDecoder::new_with_max_window_size(coded, WINDOW)
            .map_err(io::Error::other)
            .and_then(all),
        _ => return Err(BadCoding::Unknown(coding.chars().take(40).collect()).into()),
    };
    match read {
        Ok(bytes) if bytes.len() > MAX_BYTES => Err(FetchProblem::TooLarge),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(BadCoding::Damaged(coding, error).into()),
    }
}

/// Reads everything, up to one byte more than a document may have.
fn all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the bytes start like a zlib stream (RFC 1950 section 2.2).
fn is_zlib(bytes: &[u8]) -> bool {
    match bytes {
        [method, flags, ..] => {
            method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = b"{\"keys\": [1, 2, 3, 1, 2, 3]}";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    /// An uncompressed meta-block, followed by the last, empty one (RFC 7932 section 9.2).
    fn brotli(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len() - 1).unwrap();
        // Window of 16 bits: 0; not the last: 0; four nibbles: 00; the length: 16 bits; uncompressed: 1.
        let head = (length << 4) | (1 << 20);
        let mut coded = head.to_le_bytes()[..3].to_vec();
        coded.extend_from_slice(bytes);
        coded.push(3);
        coded
    }

    fn undone(codings: &[&str], bytes: &[u8]) -> Result<Bytes, String> {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(header::CONTENT_ENCODING, coding.parse().unwrap());
        }
        undo(&headers, Bytes::copy_from_slice(bytes)).map_err(|problem| problem.to_string())
    }

    #[test]
    fn what_servers_send_unasked_is_decoded() {
        for (codings, bytes) in [
            (vec![], TEXT.to_vec()),
            (vec!["identity"], TEXT.to_vec()),
            (vec!["gzip"], gzip(TEXT)),
            (vec!["X-GZip"], gzip(TEXT)),
            (vec!["deflate"], zlib(TEXT)),
            (vec!["deflate"], deflate(TEXT)),
            (vec!["br"], brotli(TEXT)),
            (vec!["zstd"], zstd(TEXT)),
            (vec!["deflate, gzip"], gzip(&zlib(TEXT))),
            (vec!["br", "gzip"], gzip(&brotli(TEXT))),
            (vec!["identity, ,gzip"], gzip(TEXT)),
        ] {
            assert_eq!(undone(&codings, &bytes).as_deref(), Ok(TEXT), "{codings:?}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_says_the_coding() {
        for (codings, bytes, said) in [
            (vec!["compress"], TEXT.to_vec(), "\"compress\" is not known"),
            (vec!["gzip"], TEXT.to_vec(), "\"gzip\" cannot be undone"),
            (
                vec!["gzip"],
                gzip(TEXT)[..20].to_vec(),
                "\"gzip\" cannot be undone",
            ),
            (
                vec!["br"],
                b"\xff\xff\xff\xff".to_vec(),
                "\"br\" cannot be undone",
            ),
            (vec!["zstd"], TEXT.to_vec(), "\"zstd\" cannot be undone"),
            (vec!["gzip, gzip, gzip"], TEXT.to_vec(), "more than 2"),
        ] {
            let problem = undone(&codings, &bytes).unwrap_err();
            assert!(problem.contains(said), "{codings:?}: {problem}");
        }
    }

    #[test]
    fn however_small_it_came_it_is_no_larger_than_a_document() {
        let (fits, large) = (vec![b' '; MAX_BYTES], vec![b' '; MAX_BYTES + 1]);
        for (coding, code) in [
            ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
            ("deflate", zlib),
            ("zstd", zstd),
        ] {
            assert_eq!(undone(&[coding], &code(&fits)).unwrap().len(), MAX_BYTES);
            let problem = undone(&[coding], &code(&large)).unwrap_err();
            assert!(problem.contains("larger than"), "{coding}: {problem}");
        }
    }
}
