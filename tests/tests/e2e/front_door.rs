//! What newcomers, real clients and real documents showed: each fails on the code before its fix.

mod binaries;
mod clients;
mod docs;
mod documents;
mod pages;
mod schemas;
mod sockets;
mod values;
