//! Connections to servers, as apps need them. Which address of a name answers is found in `net/dial`.

use std::time::Duration;

use super::endpoint::Address;
use crate::net::dial::{Call, DialError, Dialer, Need};
use crate::net::stream::Stream;

/// Opens a connection.
///
/// # Errors
/// Why there is none within this time.
pub(super) async fn dial(
    dialer: &Dialer,
    address: &Address,
    need: Need,
    within: Duration,
) -> Result<Stream, DialError> {
    match address {
        Address::Tcp(host, port) => {
            let call = Call {
                host,
                port: *port,
                need,
                within,
            };
            let stream = dialer.tcp(call, |_| true).await?;
            stream.set_nodelay(true)?;
            let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&alive)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => dialer.unix(path, need, within).await.map(Stream::Unix),
    }
}
