//! Reads a service's contract by gRPC server reflection (v1, or else v1alpha).

use std::collections::{HashMap, HashSet};

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

/// The most files that one service's contract may have.
const FILES_MAX: usize = 512;
const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
/// Services of gRPC itself, which are nobody's tools.
const GRPC_PACKAGE: &str = "grpc.";

/// A service's contract could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReflectionError {
    /// The service does not answer, or does not serve reflection.
    #[error("cannot ask the service for its contract: {}", status_text(.0))]
    Call(Box<Status>),
    /// It answered something else.
    #[error("the service answered {0}")]
    Answer(String),
    /// Its contract is not whole.
    #[error("the service's contract is broken")]
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

/// The contract of one running service.
#[derive(Clone, Debug)]
pub struct Contract {
    /// All descriptors, with comments and custom options.
    pub pool: DescriptorPool,
    /// Names of the services that it offers.
    pub services: Vec<String>,
}

/// Reads the contract of the service behind `channel`.
///
/// # Errors
/// When it does not answer in time, or with a broken contract.
pub async fn contract<C>(channel: C, context: &CallContext) -> Result<Contract, ReflectionError>
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
        read.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer").into()))?;
    // The bytes are decoded by the pool, which keeps custom options.
    let mut set = Vec::new();
    for file in reader.files.into_values() {
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut set);
        prost::encoding::encode_varint(file.len() as u64, &mut set);
        set.extend_from_slice(&file);
    }
    Ok(Contract { pool: DescriptorPool::decode(set.as_slice())?, services })
}

/// All questions go over one stream, so that one replica answers them all: replicas of different versions
/// would make a contract that nobody serves.
struct Reader {
    asking: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
    files: HashMap<String, Vec<u8>>,
}

impl Reader {
    /// Opens the stream, and says which services there are. Some languages still serve v1alpha alone, whose
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
        let (asking, asked) = mpsc::channel(1);
        // The first question is there from the start: some servers answer nothing, not even headers, before.
        let _ = asking.send(question(MessageRequest::ListServices(String::new()))).await;
        let request = context.outgoing(ReceiverStream::new(asked));
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|_| Status::unavailable("the service does not answer"))?;
        let path = PathAndQuery::from_static(path);
        let answers = client.streaming(request, path, ProstCodec::default()).await?;
        let mut reader = Self { asking, answers: answers.into_inner(), files: HashMap::new() };
        let MessageResponse::ListServicesResponse(list) = reader.answer().await? else {
            return Err(ReflectionError::Answer("something else".to_owned()));
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
                return Err(ReflectionError::Answer(format!("more than {FILES_MAX} files")));
            }
            wanted.extend(self.add(MessageRequest::FileByFilename(name)).await?);
        }
        Ok(())
    }

    /// Adds the files that the service answers with, and says which ones they import.
    async fn add(&mut self, request: MessageRequest) -> Result<Vec<String>, ReflectionError> {
        // A stream that has ended says why when it is read.
        let _ = self.asking.send(question(request)).await;
        let MessageResponse::FileDescriptorResponse(answer) = self.answer().await? else {
            return Err(ReflectionError::Answer("something else".to_owned()));
        };
        let mut imports = HashSet::new();
        for bytes in answer.file_descriptor_proto {
            let file = FileDescriptorProto::decode(bytes.as_slice())?;
            imports.extend(file.dependency);
            self.files.insert(file.name.unwrap_or_default(), bytes);
        }
        Ok(imports.into_iter().collect())
    }

    async fn answer(&mut self) -> Result<MessageResponse, ReflectionError> {
        let answer = self.answers.message().await?.and_then(|answer| answer.message_response);
        match answer {
            Some(MessageResponse::ErrorResponse(error)) => {
                Err(ReflectionError::Answer(error.error_message))
            }
            Some(answer) => Ok(answer),
            None => Err(ReflectionError::Answer("nothing".to_owned())),
        }
    }
}

fn question(request: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest { host: String::new(), message_request: Some(request) }
}

/// The contracts that this build knows, for callers that need no running service.
///
/// # Errors
/// Never in a build that passed its tests.
pub fn built_in() -> Result<DescriptorPool, ReflectionError> {
    Ok(DescriptorPool::decode(drawbridge_proto::FILE_DESCRIPTOR_SET)?)
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_contracts_keep_comments_and_custom_options() {
        let pool = built_in().expect("a whole contract");
        let method = pool
            .get_service_by_name("drawbridge.code.v1.CodeService")
            .and_then(|service| service.methods().find(|method| method.name() == "Search"))
            .expect("the method");
        let tool = pool.get_extension_by_name("drawbridge.mcp.v1.tool").expect("the option");
        assert!(method.options().has_extension(&tool));
        let set = FileDescriptorSet::decode(drawbridge_proto::FILE_DESCRIPTOR_SET).expect("a set");
        let own = |file: &&FileDescriptorProto| file.name().starts_with("drawbridge/");
        assert!(set.file.iter().filter(own).all(|file| file.source_code_info.is_some()));
    }
}
