//! Reports to the host.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

const PORT: &str = "org.oscarv.events";

/// The virtio-serial port to the host, where there is one.
pub struct Events(Option<File>);

impl Events {
    pub fn none() -> Self {
        Self(None)
    }

    /// Finds the port by its name in sysfs (udev, which makes links of these names, does not run yet).
    pub fn open() -> Self {
        let ports = fs::read_dir("/sys/class/virtio-ports")
            .into_iter()
            .flatten()
            .flatten();
        let port = ports.filter(|port| {
            fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == PORT)
        });
        let device = port
            .map(|port| format!("/dev/{}", port.file_name().to_string_lossy()))
            .next();
        Self(device.and_then(|device| OpenOptions::new().write(true).open(device).ok()))
    }

    /// A message that cannot be sent is lost: the node must come up all the same.
    pub fn tell(&mut self, kind: &str, detail: &str) {
        if let Some(port) = &mut self.0 {
            let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
            let seconds = uptime.split(' ').next().unwrap_or("0");
            let _ = port.write_all(format!("{seconds} {kind} {detail}\n").as_bytes());
        }
    }
}
