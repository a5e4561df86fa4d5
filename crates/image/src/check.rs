//! Can this machine and this user build images? And if not, what mends it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Something that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    /// The command that mends it.
    pub remedy: String,
}

const PROGRAMS: [(&str, &str); 8] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("tar", "tar"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("find", "findutils"),
    ("xz", "xz-utils"),
];

/// What is missing to build images; empty: nothing.
pub fn check() -> Vec<Finding> {
    let mut findings = Vec::new();
    let add = |findings: &mut Vec<Finding>, what: String, remedy: &str| {
        findings.push(Finding {
            what,
            remedy: remedy.to_owned(),
        });
    };
    for (program, package) in PROGRAMS {
        if !found(program) {
            add(
                &mut findings,
                format!("the program {program} is missing"),
                &format!("sudo apt-get install {package}"),
            );
        }
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if !Path::new(keyring).exists() {
        add(
            &mut findings,
            "Debian's archive keys are missing: packages could not be verified".to_owned(),
            "sudo apt-get install debian-archive-keyring",
        );
    }
    if rustix::process::geteuid().is_root() {
        return findings;
    }
    if !found("newuidmap") || !found("newgidmap") {
        add(
            &mut findings,
            "the programs newuidmap and newgidmap are missing".to_owned(),
            "sudo apt-get install uidmap",
        );
    }
    let user = user_name();
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !has_range(&fs::read_to_string(file).unwrap_or_default(), &user) {
            add(
                &mut findings,
                format!("user {user} has no 65536 subordinate ids in {file}"),
                &format!(
                    "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
                ),
            );
        }
    }
    if findings.is_empty()
        && let Err(why) = namespaces()
    {
        add(
            &mut findings,
            format!("user namespaces do not work: {why}"),
            "sudo sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 \
             kernel.apparmor_restrict_unprivileged_userns=0",
        );
    }
    findings
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Ordinary users often lack the sbin directories that the sandbox has.
    let fixed = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into);
    std::env::split_paths(&path)
        .chain(fixed)
        .any(|directory| directory.join(program).is_file())
}

fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    line.and_then(|line| line.split(':').next())
        .map_or_else(|| uid.to_string(), str::to_owned)
}

/// subuid(5): name or uid, first, count.
fn has_range(text: &str, user: &str) -> bool {
    let uid = rustix::process::getuid().as_raw().to_string();
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next();
        let count = fields.nth(1).and_then(|c| c.trim().parse::<u64>().ok());
        (owner == Some(user) || owner == Some(&uid)) && count.is_some_and(|c| c >= 65536)
    })
}

/// Tries one, as builds use it.
fn namespaces() -> Result<(), String> {
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--map-auto",
            "--mount",
            "--pid",
            "--fork",
            "--",
            "true",
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert!(has_range("bob:1:1\nalice:100000:65536\n", "alice"));
        assert!(!has_range("alice:100000:1000\n", "alice"));
        assert!(!has_range("alicex:100000:65536\n", "alice"));
        assert!(!has_range("", "alice"));
    }
}
