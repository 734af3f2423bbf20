//! `latchkey doctor`: looks at an installation and says what to do.
//!
//! Owns how findings are shown and what the volume of the ledger looks like. Never changes anything, except that it
//! writes and removes one empty file beside the ledger.

use std::io::{self, Read as _, Write};
use std::path::Path;

use comfy_table::{ContentArrangement, Table};
use serde_json::json;

use super::text;
use crate::app;
use crate::config::{Config, LedgerKind};
use crate::ports::Clock;
use crate::service::doctor::{
    Finding, IntegrationProbe, LedgerProbe, Level, examine, examine_holds, examine_reviews,
    examine_sinks, examine_witness, has_problem,
};

/// How findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DoctorFormat {
    /// For people.
    #[default]
    Table,
    /// For machines.
    Json,
}

/// Looks at everything, writes what was found to `out`, and answers the exit code: 0 without problems, 1 with one.
/// `probes` come from the composition root, which alone knows the adapters.
///
/// # Errors
/// When `out` cannot be written.
pub async fn run(
    config: &Config,
    probes: &[IntegrationProbe],
    clock: &dyn Clock,
    format: DoctorFormat,
    out: &mut (dyn Write + Send),
) -> io::Result<u8> {
    let mut findings = vec![Finding::ok(
        "configuration",
        "valid",
        "the configuration is valid",
    )];
    let mut ledger = probe_ledger(config);
    if let Some(problem) = app::probe_database(config).await {
        let remedy = "check that the server can be reached from here, and its schema";
        ledger.writable = Err((problem, remedy.to_owned()));
    }
    findings.extend(examine(probes, &ledger, clock).await);
    findings.extend(examine_witness(app::probe_witness(config).as_ref()));
    findings.extend(examine_holds(&app::held(config).await));
    findings.extend(examine_reviews(&app::owed_reviews(config).await));
    findings.extend(examine_sinks(&app::probe_sinks(config).await));
    show(&findings, format, out)?;
    Ok(u8::from(has_problem(&findings)))
}

/// Looks at the place of the ledger without opening it, so that a running process is not disturbed.
#[must_use]
pub fn probe_ledger(config: &Config) -> LedgerProbe {
    if config.ledger.kind == LedgerKind::Memory {
        return LedgerProbe {
            place: "memory".to_owned(),
            writable: Ok(()),
            free_bytes: None,
            volatile: true,
        };
    }
    if config.ledger.kind == LedgerKind::Postgres {
        return LedgerProbe {
            place: "a PostgreSQL database".to_owned(),
            writable: Ok(()),
            free_bytes: None,
            volatile: false,
        };
    }
    let path = &config.ledger.path;
    // `serve` makes missing directories; what counts is the nearest one that exists.
    let directory = path
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("/"));
    LedgerProbe {
        place: path.display().to_string(),
        writable: writable(path, directory).map_err(|error| {
            let problem = format!("it cannot be written ({})", error.kind());
            let remedy = format!(
                "make {} a directory on a durable volume that the user Latchkey runs as may write",
                directory.display()
            );
            (problem, remedy)
        }),
        free_bytes: rustix::fs::statvfs(directory)
            .ok()
            .map(|volume| volume.f_bavail.saturating_mul(volume.f_frsize)),
        volatile: false,
    }
}

fn writable(path: &Path, directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".latchkey-doctor-{}", std::process::id()));
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)?;
    std::fs::remove_file(&probe)?;
    if path.try_exists()? {
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if metadata.len() > 0 {
            let mut head = [0; HEADER.len()];
            file.read_exact(&mut head)?;
            if &head != HEADER {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
    Ok(())
}

/// How every ledger file begins.
const HEADER: &[u8; 16] = b"SQLite format 3\0";

fn show(
    findings: &[Finding],
    format: DoctorFormat,
    out: &mut (dyn Write + Send),
) -> io::Result<()> {
    match format {
        DoctorFormat::Json => {
            let all = json!({"ok": !has_problem(findings), "findings": findings});
            serde_json::to_writer_pretty(&mut *out, &all)?;
            writeln!(out)
        }
        DoctorFormat::Table => {
            let mut table = Table::new();
            table
                .load_style(comfy_table::presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_header(["", "SUBJECT", "CHECK", "FOUND"]);
            for finding in findings {
                let mut text = finding.message.clone();
                if !finding.remedy.is_empty() {
                    text = format!("{text}\n  -> {}", finding.remedy);
                }
                let level = match finding.level {
                    Level::Ok => "ok",
                    Level::Warning => "WARNING",
                    Level::Problem => "PROBLEM",
                };
                table.add_row([level, &finding.subject, finding.check, &text]);
            }
            writeln!(out, "{table}")?;
            let count = |level| findings.iter().filter(|f| f.level == level).count();
            writeln!(
                out,
                "{} checks: {}, {}",
                findings.len(),
                text::count(count(Level::Problem), "problem", "problems"),
                text::count(count(Level::Warning), "warning", "warnings")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ManualClock;

    fn config(path: &Path) -> Config {
        let text = format!(
            "ledger: {{path: '{}'}}\nintegrations: [{{name: a, secret: {{file: {{path: /run/key}}}}}}]",
            path.display()
        );
        Config::parse("test.yaml", text.as_bytes()).expect("valid")
    }

    async fn ran(config: &Config, format: DoctorFormat) -> (u8, String) {
        let mut out = Vec::new();
        let clock = ManualClock::default();
        let code = run(config, &[], &clock, format, &mut out)
            .await
            .expect("memory can be written");
        (code, String::from_utf8(out).expect("text"))
    }

    #[tokio::test]
    async fn the_exit_code_tells_whether_there_is_a_problem_in_both_formats() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let foreign = dir.path().join("ledger.db");
        std::fs::write(&foreign, "this is somebody else's file").expect("written");
        let foreign = config(&foreign);
        let (code, text) = ran(&foreign, DoctorFormat::Table).await;
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("PROBLEM") && text.contains("->"), "{text}");
        let (code, text) = ran(&foreign, DoctorFormat::Json).await;
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((code, &json["ok"]), (1, &json!(false)));
    }

    #[test]
    fn the_place_of_the_ledger_is_probed_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let probe = probe_ledger(&config(&dir.path().join("ledger.db")));
        assert_eq!(probe.writable, Ok(()));
        assert!(probe.free_bytes.is_some());
        // `serve` makes what is missing.
        let probe = probe_ledger(&config(&dir.path().join("missing/too/ledger.db")));
        assert_eq!(probe.writable, Ok(()));
        let left = std::fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(left, 0);
    }
}
