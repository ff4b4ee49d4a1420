//! What a newcomer meets at the command line: each fails on the code before its fix.

mod commands;
mod up;
