//! Writes the archive that the kernel unpacks as its first root: "newc", Documentation/driver-api/early-userspace/
//! buffer-format.rst in Linux. Uncompressed: under QEMU's TCG unpacking costs more than reading (docs/images.md).

use std::io::{self, Write};

pub(crate) struct Cpio<W: Write> {
    to: W,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    pub fn new(to: W) -> Self {
        Self { to, inode: 0 }
    }

    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, 0o040_755, 2, &[])
    }

    pub fn file(&mut self, name: &str, executable: bool, content: &[u8]) -> io::Result<()> {
        self.entry(
            name,
            if executable { 0o100_755 } else { 0o100_644 },
            1,
            content,
        )
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 1, 0)?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, links: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{name} is too large")))?;
        self.header(name, mode, links, size)?;
        self.to.write_all(content)?;
        self.pad(content.len())
    }

    fn header(&mut self, name: &str, mode: u32, links: u32, size: u32) -> io::Result<()> {
        let name_size = name.len() + 1;
        // Owner, group, time and device numbers are 0: equal inputs give equal bytes.
        write!(
            self.to,
            "070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            self.inode, 0, 0, 0, 0, 0, 0, 0, 0
        )?;
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(110 + name_size)
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..length.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_it() {
        let mut archive = Cpio::new(Vec::new());
        archive.directory("modules").unwrap();
        archive.file("modules/order", false, b"one\n").unwrap();
        archive.file("init", true, b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut child = Command::new("cpio")
            .args(["--list", "--verbose", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!((lines[0][0], lines[0][8]), ("drwxr-xr-x", "modules"));
        assert_eq!(
            (lines[1][0], lines[1][4], lines[1][8]),
            ("-rw-r--r--", "4", "modules/order")
        );
        assert_eq!(
            (lines[2][0], lines[2][4], lines[2][8]),
            ("-rwxr-xr-x", "5", "init")
        );
    }
}
