//! How much of a long response is sent at once.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex};

use super::super::ClientTls;
use super::*;

/// A stream that notes the lengths of its writes.
struct Noting(DuplexStream, Vec<usize>);

impl AsyncRead for Noting {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self(stream, lengths) = self.get_mut();
        lengths.push(slices.iter().map(|slice| slice.len()).sum());
        Pin::new(stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_is_long_is_sent_in_full_records_that_fit_into_a_segment() {
    const LENGTH: usize = 10 * SEALED;
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let pair = CertificatePair::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let tls = Tls::new(&TlsSettings {
        certificates: vec![pair],
        issued: Vec::new(),
        challenges: None,
        unknown_name: UnknownName::Refuse,
        oldest: MinVersion::Tls12,
        http2: true,
        tickets: Arc::new(TicketRing::new(Instant::now()).unwrap()),
        clients: None,
    });
    let tls = tls.unwrap();
    let (near, far) = duplex(2 * LENGTH);
    let client = ClientTls::with_ca(cert.as_bytes()).unwrap();
    let (accepted, client) = tokio::join!(
        tls.accept(Noting(near, Vec::new()), |_| None),
        client.connect("a.example", far)
    );
    let (mut server, mut client) = (accepted.unwrap().stream, client.unwrap());
    server.get_mut().0.1.clear();
    let content: Vec<u8> = (0_u32..).flat_map(u32::to_le_bytes).take(LENGTH).collect();
    server.write_all(&content).await.unwrap();
    let lengths = std::mem::take(&mut server.get_mut().0.1);
    assert_eq!(lengths.len(), 10);
    for length in lengths {
        // What frames a record is 22 bytes long.
        assert_eq!(length, SEALED / RECORD * (RECORD + 22));
        assert!(length <= SEGMENT);
    }
    let mut got = vec![0; LENGTH];
    client.read_exact(&mut got).await.unwrap();
    assert!(got == content);
}
