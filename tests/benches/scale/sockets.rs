//! gRPC over a Unix-domain socket compared with TCP on loopback: the edge's path to a tool service
//! on its machine.

use std::{io, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::{
    Few,
    args::Args,
    load::{self, Load},
    report::{Report, median, quantile},
    tools::{ReadRequest, ReadResponse},
};

const CONNECTIONS: usize = 16;
const MEASURED: Duration = Duration::from_millis(300);
/// The sizes of a small and of a large result, in bytes.
const SIZES: [u32; 2] = [100, 256 * 1024];

pub(crate) async fn run(args: &Args, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tools.sock");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tcp = format!("http://{}", listener.local_addr().expect("an address"));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(Server::builder().add_service(Few {}).serve_with_incoming(incoming));
    let incoming = UnixListenerStream::new(UnixListener::bind(&path).expect("a socket"));
    tokio::spawn(Server::builder().add_service(Few {}).serve_with_incoming(incoming));

    let tcp = Endpoint::from_shared(tcp).expect("a URL").tcp_nodelay(true).connect_lazy();
    let unix = Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(
        move |_| {
            let path = path.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        },
    ));
    for bytes in SIZES {
        compare(args, report, bytes, [&tcp, &unix]).await;
    }
}

async fn compare(args: &Args, report: &mut Report, bytes: u32, channels: [&Channel; 2]) {
    let mut rates = [Vec::new(), Vec::new()];
    let mut processor = [Vec::new(), Vec::new()];
    let mut single_medians = [Vec::new(), Vec::new()];
    for round in 0..=args.rounds {
        for (which, channel) in channels.into_iter().enumerate() {
            let open = async || Caller { client: Grpc::new(channel.clone()), bytes };
            let busy = Load::new(CONNECTIONS, MEASURED).run(&open).await;
            let mut single = Load::new(1, MEASURED).run(&open).await;
            if round > 0 {
                rates[which].push(busy.rate);
                processor[which].push(single.processor);
                single_medians[which].push(quantile(&mut single.latencies, 50));
            }
        }
    }
    for (which, name) in ["TCP", "unix"].into_iter().enumerate() {
        let of = |what: &str| format!("gRPC by {name}, {bytes} bytes: {what}");
        report.add(of("calls"), median(rates[which].clone()), "/s");
        report.add(of("a single call at the median"), median(single_medians[which].clone()), "µs");
        report.add(
            of("processor time of a single call, both sides"),
            median(processor[which].clone()),
            "µs",
        );
    }
    let ratio = |[one, other]: &[Vec<f64>; 2]| {
        median(one.iter().zip(other).map(|(one, other)| other / one).collect())
    };
    let of = |what: &str| format!("gRPC by unix over TCP, {bytes} bytes: {what}");
    report.add(of("calls"), ratio(&rates), "");
    report.add(of("a single call"), ratio(&single_medians), "");
    report.add(of("processor time of a single call"), ratio(&processor), "");
}

/// Calls over one connection shared by all callers, like the edge's calls.
struct Caller {
    client: Grpc<Channel>,
    bytes: u32,
}

impl load::Caller for Caller {
    async fn call(&mut self) {
        self.client.ready().await.expect("a connection");
        let request = tonic::Request::new(ReadRequest { bytes: self.bytes });
        let codec = ProstCodec::<ReadRequest, ReadResponse>::default();
        let answer = self.client.unary(request, Few::path(0), codec).await.expect("an answer");
        assert!(answer.get_ref().result.is_some());
    }
}
