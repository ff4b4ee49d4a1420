//! Interoperability with real clients, model APIs, browsers and documents, and the documentation's
//! examples.

mod binaries;
mod clients;
mod docs;
mod documents;
mod pages;
mod schemas;
mod sockets;
mod values;
