//! Tests of the service with helpdesks that work, fail, or do not respond.

mod harness;
mod replies;
mod samples;
mod summaries;
mod upstream;
