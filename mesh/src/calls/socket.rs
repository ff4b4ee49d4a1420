//! Serves the recent calls to commands of the same user, by a Unix-domain socket that only this
//! user can open. A query is a line of JSON, and so is its response.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_runtime::socket::{self, SocketPath, SocketPathError, UnixStream};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    task::AbortHandle,
    time::timeout,
};
use url::Url;

use super::RecentCalls;

/// The longest query, in bytes.
const QUERY_BYTES_MAX: u64 = 4 * 1024;
/// The largest response, in bytes: twice of what is recorded at most, for escapes.
const RESPONSE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a query may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallsQuery {
    /// What is recorded of the request with this id: a `RecordedCall`, or null.
    Call(String),
    /// The log lines after the one with this number: a list of `RecordedLine`.
    Lines(u64),
    /// The ids of the recorded requests of clients, the latest first.
    Requests,
}

/// The recent calls of a mesh could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// The path of the socket cannot be used.
    #[error(transparent)]
    Path(#[from] SocketPathError),
    /// The mesh does not answer.
    #[error("cannot ask the mesh for its recent calls")]
    Io(#[from] std::io::Error),
    /// It does not answer in time.
    #[error("the mesh did not answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    /// Its answer has another form.
    #[error("the mesh is another version of drawbridge: start it again")]
    Response(#[from] serde_json::Error),
}

/// The socket, which serves until it is dropped.
#[derive(Debug)]
pub struct CallsSocket {
    path: PathBuf,
    serving: AbortHandle,
}

impl CallsSocket {
    /// Serves `calls` at this path. Must be called within a runtime.
    ///
    /// # Errors
    /// When the path is too long, its folder may be changed by others, or it is in use.
    pub fn serve(path: &Path, calls: Arc<RecentCalls>) -> Result<Self, CallsError> {
        let connections = socket::bind(&socket_path(path)?)?;
        let serving = tokio::spawn(connections.for_each(move |connection| {
            let calls = Arc::clone(&calls);
            async move {
                let Ok(connection) = connection else { return };
                tokio::spawn(timeout(TIMEOUT, async move {
                    // The command has gone.
                    let _ = respond(connection, &calls).await;
                }));
            }
        }));
        Ok(Self { path: path.to_owned(), serving: serving.abort_handle() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for CallsSocket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn respond(connection: UnixStream, calls: &RecentCalls) -> std::io::Result<()> {
    let (reader, mut writer) = connection.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(QUERY_BYTES_MAX)).read_line(&mut line).await?;
    let response = match serde_json::from_str(&line)? {
        CallsQuery::Call(id) => serde_json::to_vec(&calls.call(&id))?,
        CallsQuery::Lines(after) => serde_json::to_vec(&calls.lines(after))?,
        CallsQuery::Requests => serde_json::to_vec(&calls.requests())?,
    };
    writer.write_all(&response).await?;
    writer.shutdown().await
}

/// Asks the mesh that serves this socket.
///
/// # Errors
/// When it does not answer.
pub async fn query<T: DeserializeOwned>(path: &Path, query: &CallsQuery) -> Result<T, CallsError> {
    let asking = async {
        let mut connection = socket::connect(&socket_path(path)?).await?;
        let mut line = serde_json::to_vec(query)?;
        line.push(b'\n');
        connection.write_all(&line).await?;
        let mut response = Vec::new();
        connection.take(RESPONSE_BYTES_MAX).read_to_end(&mut response).await?;
        Ok(serde_json::from_slice(&response)?)
    };
    timeout(TIMEOUT, asking).await.unwrap_or(Err(CallsError::Timeout))
}

fn socket_path(path: &Path) -> Result<SocketPath, SocketPathError> {
    let form = |()| SocketPathError::Form { text: path.display().to_string() };
    // With escapes, as in a URL.
    let url = Url::from_file_path(path).map_err(form)?;
    format!("unix:{}", url.path()).parse()
}
