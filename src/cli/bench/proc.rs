//! What the kernel says of a process.
//!
//! Owns reading `/proc`: Linux only, like the numbers that it gives. Never changes anything.

use std::fs;

use anyhow::{Context as _, bail};

/// What a process holds and did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// Resident memory, in MiB.
    pub(super) resident: f64,
    /// The most that it ever was, in MiB.
    pub(super) peak: f64,
    /// Processor time of all threads, in ticks of a hundredth of a second.
    pub(super) ticks: f64,
    /// Times that threads gave up the processor of their own accord.
    pub(super) switches: f64,
}

/// How a process stands now.
pub(super) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
    let status = read(&format!("/proc/{pid}/status"))?;
    let mut switches = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("listing threads")? {
        let path = task.context("listing threads")?.path().join("status");
        // A thread may end between being listed and being read.
        if let Ok(status) = fs::read_to_string(path) {
            switches += field(&status, "voluntary_ctxt_switches:")?;
        }
    }
    Ok(Usage {
        resident: field(&rollup, "Rss:")? / 1024.0,
        peak: field(&status, "VmHWM:")? / 1024.0,
        ticks: ticks(&read(&format!("/proc/{pid}/stat"))?)?,
        switches,
    })
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}; this needs Linux"))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> anyhow::Result<f64> {
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("no {name} where the kernel writes it"))?;
    found.parse().with_context(|| format!("{name} is a number"))
}

/// User and system time: the 14th and 15th field, counted after the name, which may hold anything.
fn ticks(stat: &str) -> anyhow::Result<f64> {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        bail!("a process has a name");
    };
    let mut total = 0.0;
    for place in [11, 12] {
        let word = rest.split_whitespace().nth(place).context("a full line")?;
        let ticks: f64 = word.parse().context("ticks are a number")?;
        total += ticks;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "Threads:\t3\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t41\nVmHWM:\t  2048 kB\n";
        assert_eq!(
            field(text, "voluntary_ctxt_switches:").expect("there"),
            41.0
        );
        assert_eq!(field(text, "VmHWM:").expect("there"), 2048.0);
        assert!(field(text, "VmRSS:").is_err());
    }

    #[test]
    fn ticks_are_counted_after_the_name_whatever_it_holds() {
        let stat = "77 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 4 0 99";
        assert_eq!(ticks(stat).expect("a full line"), 42.0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_memory_and_was_never_smaller_than_its_peak() {
        let now = usage(std::process::id()).expect("readable");
        assert!(now.resident > 1.0, "{now:?}");
        assert!(now.peak >= now.resident - 1.0, "{now:?}");
    }
}
