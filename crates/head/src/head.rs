//! The head on one machine: a store, images and drivers, opened for the length of a command.

use crate::layout::Layout;
use crate::record::{self, Record};
use crate::{Access, Error, Result};
use api::Name;
use image::Images;
use opkg::{Opkg, Repository};
use profile::{Backend, Cluster};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use store::Sqlite;
use v3m::Driver;
use v3m_fake::FakeDriver;
use v3m_qemu::QemuDriver;

/// QEMU of a cluster runs as this user and group plus the cluster's slot where we are root: ids that no account has,
/// above the range of systemd's containers (524288 to 1879048191) and below 2^31.
const FIRST_OWNER: u32 = 0x7000_0000;

pub struct Head {
    pub(crate) state: PathBuf,
    pub(crate) store: Sqlite,
    images: Images,
    /// Directories of OPKGs that go before the shipped ones.
    packages: Vec<PathBuf>,
    /// Our own program, for the network holder and for ssh's ProxyCommand.
    pub(crate) program: PathBuf,
}

impl Head {
    /// Opens (and makes, where it is missing) the state directory. `program` is the `oscarv` to be run for network
    /// holders and connections; `packages` are directories of the user's own OPKGs.
    pub fn open(state: &Path, program: &Path, packages: Vec<PathBuf>) -> Result<Self> {
        let images = Images::open(state)?;
        let state = std::fs::canonicalize(state).map_err(Error::io(state))?;
        let store = Sqlite::open(&state.join("store.sqlite"))?;
        Ok(Self {
            state,
            store,
            images,
            packages,
            program: program.to_owned(),
        })
    }

    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The OPKGs of these names with what they require, in order, and what the user should know about their choice.
    pub fn opkgs(&self, names: &[Name]) -> Result<(Vec<Opkg>, Vec<String>)> {
        let mut places = self.packages.clone();
        places.push(opkg::unpack_shipped(&self.state.join("packages"))?);
        let repository = Repository::open(&places)?;
        Ok((repository.resolve(names)?, repository.notes().to_vec()))
    }

    /// The images that nodes stand on, or will when `up` has ended, with the cluster of each.
    pub fn images_used(&self) -> Result<Vec<(Name, String)>> {
        let mut used = Vec::new();
        for record in record::all(&self.store)? {
            let name = &record.cluster.name;
            let layout = self.layout(name);
            let disks = std::fs::read_dir(layout.root.join("disks"));
            for node in disks.into_iter().flatten().flatten() {
                let node = node.file_name().to_str().and_then(|n| Name::new(n).ok());
                if let Some(node) = node
                    && let Some(made) = crate::node::Made::read(&layout, &node)?
                {
                    used.push((name.clone(), made.image));
                }
            }
            used.push((name.clone(), record.image.clone()));
        }
        used.retain(|(_, image)| !image.is_empty());
        used.sort();
        used.dedup();
        Ok(used)
    }

    pub(crate) fn layout(&self, name: &Name) -> Layout {
        Layout::new(&self.state, name)
    }

    pub(crate) fn record(&self, name: &Name) -> Result<Record> {
        match record::get(&self.store, name)? {
            Some(record) => Ok(record),
            None => {
                let known = record::all(&self.store)?
                    .into_iter()
                    .map(|r| r.cluster.name)
                    .collect();
                Err(Error::NoSuchCluster {
                    name: name.clone(),
                    known,
                })
            }
        }
    }

    /// The names of all clusters.
    pub fn names(&self) -> Result<Vec<Name>> {
        Ok(record::all(&self.store)?
            .into_iter()
            .map(|record| record.cluster.name)
            .collect())
    }

    /// How to reach the nodes of a cluster.
    pub fn access(&self, name: &Name) -> Result<Access> {
        let record = self.record(name)?;
        Ok(Access::new(&self.layout(name), &record))
    }

    pub(crate) fn driver(
        &self,
        layout: &Layout,
        slot: u16,
        backend: Backend,
    ) -> Result<Box<dyn Driver>> {
        Ok(match backend {
            Backend::Fake => Box::new(FakeDriver::open(&layout.vms())?),
            Backend::Auto | Backend::Qemu | Backend::Kvm => {
                Box::new(self.qemu(&layout.vms(), owner(slot))?)
            }
        })
    }

    fn qemu(&self, directory: &Path, owner: Option<(u32, u32)>) -> Result<QemuDriver> {
        let driver = QemuDriver::open(directory, v3m_qemu::Options { owner })?;
        let driver = driver.probe_cache(&self.state.join("probe.json"));
        // There are hosts where a tiny guest boots under KVM and Linux does not: the host's own kernel is the best test.
        let release = rustix::system::uname();
        let kernel = format!("/boot/vmlinuz-{}", release.release().to_string_lossy());
        Ok(match std::fs::File::open(&kernel) {
            Ok(_) => driver.probe_kernel(Path::new(&kernel)),
            Err(_) => driver,
        })
    }

    /// What each back-end can do here.
    pub async fn probe(&self, backend: Backend) -> Result<v3m::Probe> {
        let directory = self.state.join("probe");
        Ok(self.qemu(&directory, None)?.probe(backend).await)
    }

    /// What `auto` means on this host now.
    pub(crate) async fn choose(&self, cluster: &Cluster) -> Result<Backend> {
        if cluster.backend == Backend::Fake {
            return Ok(Backend::Fake);
        }
        // What `auto` comes to is decided once: a cluster stays on what it was made on.
        let choices: &[Backend] = match &cluster.backend {
            Backend::Auto => &[Backend::Kvm, Backend::Qemu],
            told => std::slice::from_ref(told),
        };
        let mut missing = Vec::new();
        for backend in choices {
            let probe = self.probe(*backend).await?;
            if probe.usable {
                return Ok(*backend);
            }
            missing = probe.missing;
        }
        let missing = missing.iter().map(|missing| match &missing.remedy {
            Some(remedy) => format!("{}; mend it with: {remedy}", missing.what),
            None => missing.what.clone(),
        });
        Err(Error::NoBackend {
            reason: missing.collect::<Vec<_>>().join("; "),
        })
    }

    /// The command line that, with a network's directory appended, becomes its holder.
    pub(crate) fn holder(&self) -> Vec<OsString> {
        vec![self.program.clone().into(), "net-holder".into()]
    }
}

/// Whom a cluster's files and QEMUs belong to, where we may choose.
pub(crate) fn owner(slot: u16) -> Option<(u32, u32)> {
    let id = FIRST_OWNER + u32::from(slot);
    v3m_qemu::can_become(id).then_some((id, id))
}
