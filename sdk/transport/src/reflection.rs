//! Reads a service's contract by gRPC server reflection (v1, or else v1alpha).

use std::collections::{HashMap, HashSet};

use drawbridge_contract::Contract;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, body::Body, client::GrpcService};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::{call::CallContext, status_text};

/// The most files of one service's contract.
const FILES_MAX: usize = 512;
const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
/// The package of gRPC's own services, which expose no tools.
const GRPC_PACKAGE: &str = "grpc.";

/// A service's contract could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReflectionError {
    /// The service does not answer, or does not serve reflection.
    #[error("cannot read the service's contract: {}", status_text(.0))]
    Call(Box<Status>),
    /// It sent an unexpected response.
    #[error("the service answered {0}")]
    Response(String),
    /// Its contract is invalid.
    #[error("the service's contract is invalid")]
    Descriptor(#[from] prost_reflect::DescriptorError),
    /// Its contract cannot be decoded.
    #[error("the service's contract cannot be decoded")]
    Decode(#[from] prost::DecodeError),
}

impl From<Status> for ReflectionError {
    fn from(status: Status) -> Self {
        Self::Call(Box::new(status))
    }
}

/// Reads the contract of the service behind `channel`.
///
/// # Errors
/// When it does not answer in time, or its contract is invalid.
pub async fn fetch_contract<C>(
    channel: C,
    context: &CallContext,
) -> Result<Contract, ReflectionError>
where
    C: GrpcService<Body, ResponseBody = Body> + Clone,
{
    let reading = async {
        let (mut reader, services) = Reader::open(channel, context).await?;
        for service in &services {
            reader.add_containing(service).await?;
        }
        Ok::<_, ReflectionError>((reader, services))
    };
    let read = tokio::time::timeout_at(context.deadline.into(), reading).await;
    let (reader, services) =
        read.unwrap_or_else(|_| Err(Status::deadline_exceeded("no response").into()))?;
    // The pool decodes the bytes, which keeps custom options.
    let mut set = Vec::new();
    for file in reader.files.into_values() {
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut set);
        prost::encoding::encode_varint(file.len() as u64, &mut set);
        set.extend_from_slice(&file);
    }
    Ok(Contract { pool: DescriptorPool::decode(set.as_slice())?, services })
}

/// All requests use one stream, so that one replica answers them all: replicas of different
/// versions would yield a contract that none of them serves.
struct Reader {
    requests: mpsc::Sender<ServerReflectionRequest>,
    responses: Streaming<ServerReflectionResponse>,
    files: HashMap<String, Vec<u8>>,
}

impl Reader {
    /// Opens the stream, and lists the services. Some languages still serve only v1alpha, whose
    /// messages are the same.
    async fn open<C>(
        channel: C,
        context: &CallContext,
    ) -> Result<(Self, Vec<String>), ReflectionError>
    where
        C: GrpcService<Body, ResponseBody = Body> + Clone,
    {
        match Self::open_at(channel.clone(), context, V1).await {
            Err(ReflectionError::Call(status)) if status.code() == Code::Unimplemented => {
                Self::open_at(channel, context, V1ALPHA).await
            }
            opened => opened,
        }
    }

    async fn open_at<C>(
        channel: C,
        context: &CallContext,
        path: &'static str,
    ) -> Result<(Self, Vec<String>), ReflectionError>
    where
        C: GrpcService<Body, ResponseBody = Body>,
    {
        let (requests, request_stream) = mpsc::channel(1);
        // The first request is sent with the headers: some servers send nothing, not even headers,
        // before it.
        let _ = requests.send(request_message(MessageRequest::ListServices(String::new()))).await;
        let request = context.outgoing(ReceiverStream::new(request_stream));
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|_| Status::unavailable("the service does not answer"))?;
        let path = PathAndQuery::from_static(path);
        let responses = client.streaming(request, path, ProstCodec::default()).await?;
        let mut reader =
            Self { requests, responses: responses.into_inner(), files: HashMap::new() };
        let MessageResponse::ListServicesResponse(list) = reader.next_response().await? else {
            return Err(ReflectionError::Response("with an unexpected message".to_owned()));
        };
        let names = list.service.into_iter().map(|service| service.name);
        let mut services: Vec<_> = names.filter(|name| !name.starts_with(GRPC_PACKAGE)).collect();
        services.sort_unstable();
        Ok((reader, services))
    }

    async fn add_containing(&mut self, symbol: &str) -> Result<(), ReflectionError> {
        let mut wanted = self.add(MessageRequest::FileContainingSymbol(symbol.to_owned())).await?;
        while let Some(name) = wanted.pop() {
            if self.files.contains_key(&name) {
                continue;
            }
            if self.files.len() >= FILES_MAX {
                return Err(ReflectionError::Response(format!("with more than {FILES_MAX} files")));
            }
            wanted.extend(self.add(MessageRequest::FileByFilename(name)).await?);
        }
        Ok(())
    }

    /// Adds the files of the response, and returns the files that they import.
    async fn add(&mut self, request: MessageRequest) -> Result<Vec<String>, ReflectionError> {
        // If the stream has ended, reading it returns the reason.
        let _ = self.requests.send(request_message(request)).await;
        let MessageResponse::FileDescriptorResponse(next_response) = self.next_response().await?
        else {
            return Err(ReflectionError::Response("with an unexpected message".to_owned()));
        };
        let mut imports = HashSet::new();
        for bytes in next_response.file_descriptor_proto {
            let file = FileDescriptorProto::decode(bytes.as_slice())?;
            imports.extend(file.dependency);
            self.files.insert(file.name.unwrap_or_default(), bytes);
        }
        Ok(imports.into_iter().collect())
    }

    async fn next_response(&mut self) -> Result<MessageResponse, ReflectionError> {
        let next_response =
            self.responses.message().await?.and_then(|response| response.message_response);
        match next_response {
            Some(MessageResponse::ErrorResponse(error)) => {
                Err(ReflectionError::Response(error.error_message))
            }
            Some(next_response) => Ok(next_response),
            None => Err(ReflectionError::Response("with no message".to_owned())),
        }
    }
}

fn request_message(request: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest { host: String::new(), message_request: Some(request) }
}
