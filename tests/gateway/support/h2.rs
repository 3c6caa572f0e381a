//! An HTTP/2 client: hyper's, with prior knowledge over plain TCP, or over a TLS stream.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::wire::Stream;
use super::{DEADLINE, Reply, within};

/// One connection.
#[derive(Clone)]
pub(crate) struct H2(SendRequest<UnsyncBoxBody<Bytes, Infallible>>);

impl H2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    pub(crate) async fn over(stream: impl Stream + 'static) -> Self {
        let io = TokioIo::new(stream);
        let (send, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    pub(crate) async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.send("GET", path, fields, Full::default()).await
    }

    /// Sends a request and reads all of its answer.
    pub(crate) async fn send<B>(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: B,
    ) -> Reply
    where
        B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://gateway.test{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(body.boxed_unsync()).unwrap();
        within(DEADLINE, async {
            self.0
                .ready()
                .await
                .expect("the HTTP/2 connection has ended");
            let response = self
                .0
                .send_request(request)
                .await
                .expect("no HTTP/2 response");
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("the HTTP/2 response broke off");
            let trailers = body.trailers().map(pairs).unwrap_or_default();
            let body = body.to_bytes().to_vec();
            Reply {
                status: parts.status.as_u16(),
                fields: pairs(&parts.headers),
                body,
                trailers,
            }
        })
        .await
        .expect("no whole HTTP/2 response in time")
    }
}

fn pairs(map: &http::HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}
