//! The printed report.

use std::fmt;

use crate::{
    micro::WIRE_TO_TEXT,
    report::{self, Measured, Report, Spread},
};

/// The minimum throughput of a path, as a ratio to another's, while the HTTP server has its own
/// processor.
const RATIO_MIN: [(&str, f64); 4] = [
    ("edge/relay", 0.6),
    ("edge/relay-tool", 0.8),
    ("edge/rmcp", 0.4),
    ("edge-session/edge", 0.95),
];
/// The maximum processor time of a call through the edge, of all threads, as a multiple of the
/// relay's.
const PROCESSOR_MAX: f64 = 1.6;
/// The maximum that the edge adds to the median latency of a direct call of the tool, in
/// microseconds.
const ADDED_MAX: f64 = 180.0;
/// The maximum duration of a result of 10 matches from the wire to text, in microseconds.
const WIRE_TO_TEXT_MAX: f64 = 15.0;
/// The maximum latency of a result of this size through the edge, as a multiple of the relay's.
const PAYLOAD_MAX: (u32, f64) = (1 << 20, 1.3);
/// Threads with less processor time per call are omitted, in microseconds.
const PART_MIN: f64 = 0.5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, rounds, measured, divided, .. } = self;
        writeln!(
            f,
            "{rounds} rounds; with {connections} connections, and with one; processor time per call and latency in microseconds\n"
        )?;
        paths(f, measured)?;
        writeln!(f, "\nthe HTTP server has its own processor")?;
        paths(f, divided)?;
        parts(f, divided)?;
        writeln!(f, "\nthroughput, as a ratio: median, minimum and maximum of the rounds")?;
        spreads(f, 2, report::ratios(measured))?;
        writeln!(f, "\nthe same while the HTTP server has its own processor")?;
        spreads(f, 2, report::ratios(divided))?;
        writeln!(
            f,
            "\nthe same for processor time of the whole path, which is stable on a busy machine"
        )?;
        spreads(f, 2, report::processor(measured))?;
        writeln!(f, "\nadded to the median latency of a single call, in microseconds")?;
        spreads(f, 0, report::added(measured))?;
        self.payloads(f)?;
        if !self.micro.is_empty() {
            writeln!(f, "\nsteps, in nanoseconds")?;
        }
        for step in &self.micro {
            writeln!(f, "{:<45} {:>8.0}", step.name, step.nanoseconds)?;
        }
        self.budgets(f)
    }
}

fn spreads(
    f: &mut fmt::Formatter<'_>,
    decimals: usize,
    mut all: impl Iterator<Item = (String, Spread)>,
) -> fmt::Result {
    all.try_for_each(|(name, (median, min, max))| {
        writeln!(f, "{name:<22} {median:>6.decimals$}  {min:.decimals$} to {max:.decimals$}")
    })
}

fn paths(f: &mut fmt::Formatter<'_>, measured: &[Measured]) -> fmt::Result {
    writeln!(
        f,
        "{:<12} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10}",
        "", "calls/s", "cpu", "p50", "p99", "single p50", "p99"
    )?;
    for measured in measured {
        let json = measured.json();
        let number = |name: &str| json[name].as_f64().unwrap_or_default();
        writeln!(
            f,
            "{:<12} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>10.0} {:>10.0}",
            measured.name,
            number("calls_per_second"),
            number("processor_us"),
            number("busy_p50_us"),
            number("busy_p99_us"),
            number("alone_p50_us"),
            number("alone_p99_us"),
        )?;
    }
    Ok(())
}

/// The processor time of a call by thread.
fn parts(f: &mut fmt::Formatter<'_>, measured: &[Measured]) -> fmt::Result {
    writeln!(f, "\nprocessor time of a call by thread, in microseconds (bench: the load)")?;
    for measured in measured {
        let parts = measured.parts().into_iter().filter(|(_, time)| *time >= PART_MIN);
        let parts: Vec<_> = parts.map(|(name, time)| format!("{name} {time:.1}")).collect();
        writeln!(f, "{:<12} {}", measured.name, parts.join(", "))?;
    }
    Ok(())
}

fn write_budget(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    is_met: bool,
    rest: fmt::Arguments<'_>,
) -> fmt::Result {
    writeln!(f, "{name}: {rest}: {}", if is_met { "met" } else { "NOT met" })
}

impl Report {
    fn payloads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.payloads.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nresults by size, one call at a time: latency and processor time in microseconds"
        )?;
        writeln!(
            f,
            "{:>9} {:>9} {:>9} {:>7} {:>10} {:>10} {:>13} {:>13}",
            "KiB", "edge", "relay", "ratio", "edge cpu", "relay cpu", "edge µs/KiB", "relay µs/KiB"
        )?;
        for payload in &self.payloads {
            let kib = f64::from(payload.bytes) / 1024.0;
            let (edge, relay) = (&payload.edge, &payload.relay);
            writeln!(
                f,
                "{kib:>9.0} {:>9.0} {:>9.0} {:>7.2} {:>10.0} {:>10.0} {:>13.2} {:>13.2}",
                edge.latency,
                relay.latency,
                payload.ratio,
                edge.processor,
                relay.processor,
                edge.latency / kib,
                relay.latency / kib,
            )?;
        }
        Ok(())
    }

    fn budgets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        let find = |name: &str, mut all: Box<dyn Iterator<Item = (String, Spread)> + '_>| {
            all.find(|(found, _)| found == name).map(|(_, spread)| spread.0)
        };
        for (name, min) in RATIO_MIN {
            if let Some(ratio) = find(name, Box::new(report::ratios(&self.divided))) {
                let rest = format_args!("{ratio:.2} of the throughput, at least {min}");
                write_budget(f, name, ratio >= min, rest)?;
            }
        }
        if let Some(ratio) = find("edge/relay", Box::new(report::processor(&self.measured))) {
            let times = ratio.recip();
            let rest = format_args!("{times:.2} times the processor time, at most {PROCESSOR_MAX}");
            write_budget(f, "edge/relay", times <= PROCESSOR_MAX, rest)?;
        }
        if let Some(added) = find("edge-grpc-tool", Box::new(report::added(&self.measured))) {
            let rest = format_args!("{added:.0} µs at the median, at most {ADDED_MAX}");
            write_budget(f, "edge-grpc-tool", added <= ADDED_MAX, rest)?;
        }
        if let Some(step) = self.micro.iter().find(|step| step.name == WIRE_TO_TEXT) {
            let duration_us = step.nanoseconds / 1000.0;
            let rest = format_args!("{duration_us:.1} µs, at most {WIRE_TO_TEXT_MAX}");
            write_budget(f, WIRE_TO_TEXT, duration_us <= WIRE_TO_TEXT_MAX, rest)?;
        }
        let (bytes, max) = PAYLOAD_MAX;
        if let Some(payload) = self.payloads.iter().find(|payload| payload.bytes == bytes) {
            let rest =
                format_args!("{:.2} times the relay's latency, at most {max}", payload.ratio);
            write_budget(f, "a result of 1 MiB", payload.ratio <= max, rest)?;
        }
        Ok(())
    }
}
