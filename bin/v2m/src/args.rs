//! The command line, as data: help, completion and man pages come from here.

use crate::exit::CODES;
use api::{MiB, Name};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use profile::DiskFormat;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Single virtual machines from one profile each, on any hypervisor
///
/// A profile (TOML or XML, libv3m's too) says what a VM is. `v2m start FILE` makes and starts it; from then on it is
/// known by its name. Nothing has to run beforehand, and VMs outlive the command.
#[derive(Debug, Parser)]
#[command(name = "v2m", version, max_term_width = 100, after_long_help = CODES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where VMs are kept [default: V2M_STATE, or /var/lib/v2m for root, ~/.local/share/v2m for others]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,

    #[command(flatten)]
    pub form: terminal::Form,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a profile, show all that is wrong with it and what was filled in
    Validate(FileArg),
    /// Write a profile in another form, with the same meaning
    Convert {
        #[command(flatten)]
        file: FileArg,
        /// The form
        #[arg(long, value_name = "FORM")]
        to: To,
        /// Of a file with several VMs, this one
        #[arg(long, value_name = "NAME")]
        vm: Option<Name>,
    },
    /// Say whether this machine is fit, and what mends it
    Check,
    /// Show what each hypervisor can do here
    Capabilities,
    /// Make VMs as their profiles say, without starting them
    Create(Create),
    /// Start VMs; a profile's VM is made first
    #[command(alias = "vm_create")]
    Start(Start),
    /// Shut VMs down: asks the guest, and switches it off when its time is over
    Stop {
        #[command(flatten)]
        vms: Many,
        /// How long the guest may take; 0: it is switched off at once
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = terminal::time::parse)]
        grace: Duration,
    },
    /// Restart VMs: asks the guest, and resets it when its time is over
    Reboot {
        #[command(flatten)]
        vms: Many,
        /// How long the guest may take to shut down; 0: it is reset at once
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = terminal::time::parse)]
        grace: Duration,
    },
    /// Hold VMs: their guests stand still, and keep their memory
    #[command(alias = "vm_pause")]
    Pause(Many),
    /// Let paused VMs go on
    #[command(alias = "vm_unpause")]
    Resume(Many),
    /// Remove VMs; they are switched off first
    Destroy(Destroy),
    /// List all VMs
    List,
    /// Show one VM
    Status {
        #[command(flatten)]
        vm: One,
        /// Print one word: running, paused, shutdown, crashed, unknown or not found
        #[arg(long)]
        word: bool,
    },
    /// Attach to a VM's serial console; Ctrl-] detaches
    Console(Console),
    /// Show what VMs use: processor, memory, disks, network
    Top(Top),
    /// Make, look at and change disk images
    #[command(subcommand)]
    Image(Image),
    /// Install a VM from the CD in its profile onto its empty first disk
    #[command(
        name = "create-image-from-cdrom",
        alias = "create_image_from_cdrom",
        alias = "create-vm-image-from-cdrom"
    )]
    CreateImageFromCdrom(Install),
    /// Write the completion of a shell to standard output
    Completion { shell: clap_complete::Shell },
    /// Write the man pages into a directory
    Man {
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// List what exit codes mean
    #[command(after_help = CODES)]
    ExitCodes,
    /// Show the version
    Version,
    /// Move a VM to another host: not yet
    #[command(name = "migrate", alias = "vm_migrate", hide = true)]
    Migrate { vm: OsString, host: String },
    /// Install a VM with OSCAR: not yet
    #[command(
        name = "install-with-oscar",
        alias = "create_image_with_oscar",
        hide = true
    )]
    InstallWithOscar { vm: OsString },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum To {
    Toml,
    Xml,
}

#[derive(Debug, Args)]
pub struct FileArg {
    /// The profile; `-` reads standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct One {
    /// A VM, by its name or by its profile
    #[arg(value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub vm: OsString,
}

#[derive(Debug, Args)]
pub struct Console {
    #[command(flatten)]
    pub vm: One,
    /// Take it over from whoever has it
    #[arg(long)]
    pub take: bool,
}

#[derive(Debug, Args)]
pub struct Many {
    /// VMs, by their names or by their profiles
    #[arg(required = true, value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub vms: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Create {
    /// Profiles; `-` reads standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Start them, too
    #[arg(long)]
    pub start: bool,
    /// A VM that is there already, stopped and otherwise, becomes as its profile says; its disks stay
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, Args)]
pub struct Start {
    #[command(flatten)]
    pub vms: Many,
    /// Wait until the VM's console shows this text
    #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, default_missing_value = "login:")]
    pub wait_ready: Option<String>,
    /// How long that may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = terminal::time::parse)]
    pub time_limit: Duration,
}

#[derive(Debug, Args)]
pub struct Destroy {
    #[command(flatten)]
    pub vms: Many,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove also the disks that v2m made for them
    #[arg(long)]
    pub disks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Raw,
    Qcow2,
    Vmdk,
    Vdi,
}

impl From<Format> for DiskFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Raw => Self::Raw,
            Format::Qcow2 => Self::Qcow2,
            Format::Vmdk => Self::Vmdk,
            Format::Vdi => Self::Vdi,
        }
    }
}

/// A format that is not told is the one that the file's name ends in (.raw, .img, .qcow2, .vmdk, .vdi).
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Make an empty image, or one that holds only what differs from another
    Create {
        /// The new image, which must not be there yet
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// As in 512M or 4G; not less than the image it stands on has, which is the default
        size: Option<MiB>,
        /// The format [default: by the ending of the name]
        #[arg(long)]
        format: Option<Format>,
        /// The image it stands on, which must not change from then on
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        backing: Option<PathBuf>,
        /// That image's format [default: by the ending of its name]
        #[arg(long, value_name = "FORMAT", requires = "backing")]
        backing_format: Option<Format>,
    },
    /// Show what an image is
    Info {
        /// The image
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The format [default: by the ending of the name]
        #[arg(long)]
        format: Option<Format>,
    },
    /// Give an image another size
    Resize {
        /// The image: raw or qcow2
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// As in 512M or 4G
        size: MiB,
        /// The format [default: by the ending of the name]
        #[arg(long)]
        format: Option<Format>,
        /// It may become smaller: what is behind its new end is lost
        #[arg(long)]
        shrink: bool,
    },
    /// Look for damage in an image
    Check {
        /// The image
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The format [default: by the ending of the name]
        #[arg(long)]
        format: Option<Format>,
    },
    /// Make an image of another format with the same content
    Convert(FromTo),
    /// Take an image of somebody else's in; a format that is not told is found by its first bytes
    Import(FromTo),
    /// Give an image away as one file that stands on nothing
    Export(FromTo),
    /// Keep states of a VM or of a qcow2 image, and go back to them
    #[command(subcommand)]
    Snapshot(Snapshot),
}

#[derive(Debug, Args)]
pub struct FromTo {
    /// The image
    #[arg(value_hint = ValueHint::FilePath)]
    pub from: PathBuf,
    /// The new one, which must not be there yet
    #[arg(value_hint = ValueHint::FilePath)]
    pub to: PathBuf,
    /// The image's format
    #[arg(long, value_name = "FORMAT")]
    pub from_format: Option<Format>,
    /// The new one's format [default: by the ending of its name]
    #[arg(long, value_name = "FORMAT")]
    pub to_format: Option<Format>,
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Make one: of a running VM with its memory
    Create {
        /// A VM by its name, or a qcow2 image
        #[arg(value_name = "VM|FILE")]
        of: String,
        /// What it is to be called
        name: Name,
    },
    /// List them
    List {
        /// A VM by its name, or a qcow2 image
        #[arg(value_name = "VM|FILE")]
        of: String,
    },
    /// Go back to one; what was written since is lost
    Apply {
        /// A VM by its name, or a qcow2 image
        #[arg(value_name = "VM|FILE")]
        of: String,
        /// Its name
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove one
    Delete {
        /// A VM by its name, or a qcow2 image
        #[arg(value_name = "VM|FILE")]
        of: String,
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Top {
    /// Show it once, and end
    #[arg(long)]
    pub once: bool,
    /// The time between two looks
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = terminal::time::parse)]
    pub interval: Duration,
    /// Write it into this file instead, in Prometheus' text format; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub prometheus: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Install {
    #[command(flatten)]
    pub file: FileArg,
    /// Do not show the console
    #[arg(long)]
    pub detach: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }
}
