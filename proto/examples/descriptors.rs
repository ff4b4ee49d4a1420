//! Writes the contracts as a `FileDescriptorSet`, for tools that read one: `make lint` gives it to
//! buf.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    io::stdout().write_all(drawbridge_proto::FILE_DESCRIPTOR_SET)
}
