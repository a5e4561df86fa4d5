//! Starts a VM from a disk image and shows its console until that is silent for ten seconds:
//! `cargo run -p v3m-qemu --example start -- disk.qcow2`

use profile::{Backend, Boot, BootDevice, Disk, DiskFormat, Vm};
use std::{io::Read, path::Path, time::Duration};
use v3m::Driver;
use v3m_qemu::{Options, QemuDriver};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = std::env::args_os().nth(1).ok_or("which disk image?")?;
    let disk = Disk::new(std::fs::canonicalize(image)?, DiskFormat::Qcow2, false);
    let order = vec![BootDevice::Disk];
    let boot = Boot::Firmware { order };
    let mut vm = Vm::new("example".parse()?, Backend::Auto, 1, api::MiB(512), boot);
    vm.disks = vec![disk];
    let driver = QemuDriver::open(Path::new("v3m-example"), Options::default())?;
    driver.define(&vm).await?;
    driver.start(&vm.name).await?;
    let mut console = driver.console(&vm.name).await?.connect()?;
    console.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = [0; 4096];
    while let Ok(length @ 1..) = console.read(&mut text) {
        print!("{}", String::from_utf8_lossy(&text[..length]));
    }
    driver.stop(&vm.name, Duration::from_secs(30)).await?;
    driver.undefine(&vm.name).await?;
    Ok(())
}
