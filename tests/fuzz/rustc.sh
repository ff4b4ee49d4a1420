#!/usr/bin/env bash
# Compiles the workspace's own crates with the coverage instrumentation of libFuzzer, on the stable
# toolchain. Cargo calls it as RUSTC_WORKSPACE_WRAPPER and stores its output separately;
# dependencies are shared with other builds.
set -euo pipefail

# Build scripts are not linked with libFuzzer.
case " $* " in *" build_script_"*) exec "$@" ;; esac

exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
