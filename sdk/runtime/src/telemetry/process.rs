//! The figures of the process, which a scrape records.

#[cfg(target_os = "linux")]
pub(crate) use self::linux::record;

/// Records nothing: other systems need unsafe code for them.
#[cfg(not(target_os = "linux"))]
pub(crate) fn record() {}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::{
        ProcResult, WithCurrentSystemInfo as _,
        process::{LimitValue, Process},
    };

    use crate::{metric::Gauge, metrics};

    /// Records the current figures of the process. Those that `/proc` does not show are left out.
    pub(crate) fn record() {
        // A sandbox may hide `/proc`.
        if let Err(error) = try_record() {
            tracing::debug!(%error, "the figures of the process cannot be read");
        }
    }

    fn try_record() -> ProcResult<()> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks_per_second = procfs::ticks_per_second();
        metrics::PROCESS_CPU.get().absolute((stat.utime + stat.stime) / ticks_per_second);
        let started = procfs::boot_time_secs()? + stat.starttime / ticks_per_second;
        set(&metrics::PROCESS_START.get(), started);
        set(&metrics::PROCESS_RESIDENT_MEMORY.get(), stat.rss_bytes().get());
        set(&metrics::PROCESS_VIRTUAL_MEMORY.get(), stat.vsize);
        set(&metrics::PROCESS_THREADS.get(), stat.num_threads.unsigned_abs());
        set(&metrics::PROCESS_OPEN_FILES.get(), process.fd_count()? as u64);
        if let LimitValue::Value(max) = process.limits()?.max_open_files.soft_limit {
            set(&metrics::PROCESS_FILES_MAX.get(), max);
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "no figure is near 2^53")]
    fn set(gauge: &Gauge, figure: u64) {
        gauge.set(figure as f64);
    }
}
