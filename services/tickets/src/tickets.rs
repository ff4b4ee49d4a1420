//! The service against helpdesks that behave well, badly, and not at all.

mod harness;
mod replies;
mod samples;
mod summaries;
mod upstream;
