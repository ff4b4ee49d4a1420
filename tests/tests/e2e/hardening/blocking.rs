//! Work that blocks a thread: deadline, cancellation and stop reach it.
