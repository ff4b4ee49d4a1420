use std::path::Path;

use drawbridge_cli::backing;

/// A Redis server of this test's own.
#[derive(Debug)]
pub struct Redis {
    server: backing::Redis,
    /// Where it is.
    pub url: String,
}

impl Redis {
    /// Starts a server on a free port and waits until it answers.
    pub async fn start() -> Self {
        let server = backing::Redis::start(Path::new("redis-server")).await.unwrap_or_else(|error| {
            panic!("{error}: {error:?}; `make test` or `tests/setup.sh test` installs Redis")
        });
        Self { url: server.url.clone(), server }
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.server.server.kill();
    }

    /// Starts it again where it was, and empty.
    pub async fn start_again(&mut self) {
        self.server.start_again().await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    }
}
