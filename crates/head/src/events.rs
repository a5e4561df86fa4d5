//! What a node has reported: one line a message, `SECONDS KIND DETAIL…`, appended by QEMU (see packages/base).

use crate::Readiness;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A boot's reports are a few hundred bytes; a guest may write as much as it likes.
const ENOUGH: u64 = 64 << 10;

/// Reads a node's readiness off its reports. No file is no report.
pub fn readiness(path: &Path) -> Readiness {
    match tail(path, ENOUGH) {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)),
        Err(_) => Readiness::Silent,
    }
}

/// Reports in the name of a node that is no VM.
pub fn append(path: &Path, text: &str) -> crate::Result<()> {
    let file = std::fs::OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(crate::Error::io(path))
}

/// The last bytes of a file that a guest writes.
pub fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.take(bytes).read_to_end(&mut tail)?;
    Ok(tail)
}

/// The last boot counts. A failed phase is remembered: the node may still answer, but it is not what was asked for.
pub fn parse(text: &str) -> Readiness {
    let mut now = Readiness::Silent;
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(_seconds), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        let detail = words.next().unwrap_or_default();
        now = match (kind, now) {
            // Its packages have written their configuration anew: what went wrong before is mended.
            ("applied", _) => Readiness::Booting("applied".to_owned()),
            ("boot", _) if detail == "kernel" => Readiness::Booting("kernel".to_owned()),
            ("failed", _) => Readiness::Failed(detail.to_owned()),
            (_, Readiness::Failed(why)) => Readiness::Failed(why),
            ("ready", _) => Readiness::Ready,
            ("waiting", _) => Readiness::Booting(format!("waiting: {detail}")),
            ("boot" | "passed", _) => Readiness::Booting(format!("{kind}: {detail}")),
            (_, before) => before,
        };
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_boot_counts() {
        assert_eq!(parse(""), Readiness::Silent);
        let first = "1.0 boot kernel\n2.0 boot systemd\n3.0 passed base\n4.0 ready\n";
        assert_eq!(parse(first), Readiness::Ready);
        assert_eq!(
            parse(&format!("{first}1.1 boot kernel\n")),
            Readiness::Booting("kernel".to_owned())
        );
    }

    #[test]
    fn a_failure_is_not_forgotten() {
        let text = "1.0 boot kernel\n2.0 failed slurm server-post-install: no\n3.0 passed base\n4.0 ready\n";
        assert_eq!(
            parse(text),
            Readiness::Failed("slurm server-post-install: no".to_owned())
        );
        assert_eq!(
            parse(&format!("{text}1.0 boot kernel\n9.9 ready\n")),
            Readiness::Ready
        );
        // A cause that was mended, and the packages asked again.
        assert_eq!(
            parse(&format!("{text}99.0 applied\n99.5 passed base\n")),
            Readiness::Booting("passed: base".to_owned())
        );
    }

    #[test]
    fn noise_is_passed_over() {
        assert_eq!(
            parse("\u{fffd}\n\n1.0\n2.0 gossip about others\n"),
            Readiness::Silent
        );
    }
}
