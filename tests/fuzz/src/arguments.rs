//! Arguments of a tool: JSON to protobuf and back, and the guards on the same texts. The first line
//! names the tool, the rest is its arguments.

#![no_main]
#![expect(clippy::expect_used, reason = "a failed start ends the fuzz target")]

use std::sync::LazyLock;

use drawbridge_edge::fuzzing::FuzzTools;
use libfuzzer_sys::{Corpus, fuzz_target};
use tokio::runtime::{Builder, Runtime};

mod contracts;

// The tools' channels need a runtime. It never runs, so they never connect.
static TOOLS: LazyLock<(Runtime, FuzzTools)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let entered = runtime.enter();
    let tools = FuzzTools::new(&contracts::contracts());
    drop(entered);
    (runtime, tools)
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (Some(name), Some(arguments)) = (parts.next(), parts.next()) else { return Corpus::Reject };
    if let Ok(arguments) = str::from_utf8(arguments) {
        // A tool may return any text.
        TOOLS.1.assert_guarded(arguments);
    }
    match str::from_utf8(name).is_ok_and(|name| TOOLS.1.assert_arguments(name, arguments)) {
        true => Corpus::Keep,
        false => Corpus::Reject,
    }
});
