//! The command line, as data: help, completion and man pages come from here.

use crate::exit::CODES;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Virtual HPC clusters on any hypervisor, in seconds
///
/// A cluster is described in one file (TOML). `oscarv up FILE` makes it so, and again after the file was changed;
/// nothing has to run beforehand, and nodes outlive the command.
#[derive(Debug, Parser)]
#[command(name = "oscarv", version, max_term_width = 100, disable_help_subcommand = false, after_long_help = CODES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where clusters and images are kept [default: OSCARV_STATE, or /var/lib/oscarv for root, ~/.local/share/oscarv for
    /// others]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,

    /// The cluster that is meant where none is named; not needed when there is only one [default: OSCARV_CLUSTER]
    #[arg(
        id = "chosen-cluster",
        short,
        long = "cluster",
        global = true,
        value_name = "CLUSTER"
    )]
    pub cluster: Option<api::Name>,

    /// A directory of OPKGs of your own; they go before those that come with oscarv
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub packages: Vec<PathBuf>,

    #[command(flatten)]
    pub form: terminal::Form,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a cluster as its file says
    ///
    /// Builds or reuses the image, makes the network, starts nodes and waits until each is ready by its packages' own
    /// tests. Run again, it does only what has changed. It asks before it does what loses data.
    Up(Up),
    /// Take a cluster down and remove its nodes with their disks
    Down(Down),
    /// Show the nodes of a cluster
    Status(OneCluster),
    /// List all clusters
    List,
    /// Open a shell on a node, or run a program there with a terminal
    Ssh(Ssh),
    /// Run a program on many nodes at once
    ///
    /// Nodes that answer the same are shown once. The exit code is the highest of the nodes'.
    Exec(Exec),
    /// Run a program on the head, as the cluster's user
    Run(Run),
    /// Copy files to nodes
    Push(Push),
    /// Copy files from nodes; from several into one directory each
    Get(Get),
    /// Attach to a node's console; Ctrl-] detaches
    Console(OneNode),
    /// Show what a node has printed
    Logs(Logs),
    /// Build and look after images
    #[command(subcommand)]
    Image(Image),
    /// Put a file or an image on many hosts in the time of one
    #[command(subcommand)]
    Spread(Spread),
    /// Say whether this machine is fit, and what mends it
    Check,
    /// Test a cluster: its packages' own tests, then HPCC over Slurm and MPI
    Test(Test),
    /// Check a cluster file and show all that is wrong with it
    Validate(FileArg),
    /// Print the ssh configuration of a cluster, for other tools
    SshConfig(OneCluster),
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
    /// What ssh runs to reach a node: hands it a connection made inside the cluster's network
    #[command(hide = true)]
    Dial {
        cluster: api::Name,
        host: String,
        port: u16,
    },
    /// The process that holds a cluster's network
    #[command(hide = true)]
    NetHolder { dir: PathBuf },
}

#[derive(Debug, Args)]
pub struct FileArg {
    /// The cluster file; `-` reads standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub file: FileArg,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before nodes are replaced or removed
    #[arg(short, long)]
    pub yes: bool,
    /// How long all nodes may take to become ready
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = crate::time::parse)]
    pub time_limit: Duration,
    /// Return when the nodes run, before they are ready
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct Down {
    /// The cluster; may be given by -c or OSCARV_CLUSTER instead
    pub cluster: Option<api::Name>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Keep disks, keys and addresses, so that the next up goes on with them
    #[arg(long)]
    pub keep: bool,
    /// With --keep: how long nodes may take to shut down before they are switched off [default: 60s]
    #[arg(long, value_name = "TIME", requires = "keep", value_parser = crate::time::parse)]
    pub grace: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct OneCluster {
    /// The cluster; not needed when there is only one
    pub cluster: Option<api::Name>,
}

#[derive(Debug, Args)]
pub struct OneNode {
    /// The node
    #[arg(value_name = "[CLUSTER:]NODE")]
    pub node: String,
}

#[derive(Debug, Args)]
pub struct Who {
    /// Who to be on the node [default: the cluster's user]
    #[arg(short = 'l', long, value_name = "USER")]
    pub user: Option<api::Name>,
}

#[derive(Debug, Args)]
pub struct Ssh {
    /// The node [default: the head]
    #[arg(value_name = "[CLUSTER:]NODE")]
    pub node: Option<String>,
    #[command(flatten)]
    pub who: Who,
    /// A program with its arguments; no shell reads them
    #[arg(last = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Many {
    /// Nodes at a time
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub fanout: u16,
    /// Time limit for each node
    #[arg(short, long, value_name = "TIME", value_parser = crate::time::parse)]
    pub time_limit: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// Nodes, groups, `head` or `all`: compute[1-3,7],head
    #[arg(value_name = "[CLUSTER:]NODESET")]
    pub nodes: String,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub many: Many,
    /// Show lines as they come, each with its node, instead of equal answers once
    #[arg(short, long)]
    pub stream: bool,
    /// A program with its arguments; no shell reads them
    #[arg(last = true, required = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The cluster; not needed when there is only one
    pub cluster: Option<api::Name>,
    /// A program with its arguments; no shell reads them
    #[arg(last = true, required = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Push {
    /// Nodes, groups, `head` or `all`: compute[1-3,7],head
    #[arg(value_name = "[CLUSTER:]NODESET")]
    pub nodes: String,
    /// What to copy, and at the end where to: relative to the home directory there
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "DEST"], value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub struct Get {
    /// Nodes, groups, `head` or `all`: compute[1-3,7],head
    #[arg(value_name = "[CLUSTER:]NODESET")]
    pub nodes: String,
    /// What to copy: relative to the home directory there
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Where to; from several nodes: the directory for theirs
    #[arg(value_name = "DEST", value_hint = ValueHint::AnyPath)]
    pub dest: PathBuf,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    pub node: OneNode,
    /// Go on showing what comes
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the last lines to show; 0: all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    pub lines: usize,
    /// The console, the node's own reports of its way to readiness, or the hypervisor's messages
    #[arg(short, long, value_name = "LOG", default_value = "console")]
    pub which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    Console,
    Events,
    Hypervisor,
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Build the image of a cluster file; an unchanged one is only looked up
    Build {
        #[command(flatten)]
        file: FileArg,
        /// A name for it
        #[arg(long)]
        tag: Option<String>,
        /// Build it again even if it is there
        #[arg(long)]
        force: bool,
    },
    /// List images
    List,
    /// Show one image: recipe, packages with versions, digests
    Show {
        /// A tag, or the beginning of an id
        image: String,
    },
    /// Remove one image
    Remove {
        /// A tag, or the beginning of an id
        image: String,
        /// Show what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove what no tag names and no cluster uses
    Prune {
        /// Show what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Spread {
    /// Send a file, a tree of files or an image to hosts where `oscarv spread receive` runs
    ///
    /// Each host passes on what still comes: N hosts take the time of one. Hosts may fail, be late or slow; the report
    /// says what happened to each. Run again, hosts that have it are left alone.
    Send(SpreadSend),
    /// Take what sources send, and pass it on, until interrupted
    Receive(SpreadReceive),
    /// Say how long it would take on hosts that are not there
    ///
    /// The same decisions as the real thing, on links that are numbers.
    Simulate(SpreadSimulate),
    /// Print the public key that receivers here and elsewhere have to trust; it is made the first time
    Key,
    /// Make what hosts need for private content: one file for each, with a certificate and its key
    ///
    /// The first time, this makes a small CA here, and this host's own bundle. Copy each HOST.pem to its host, as
    /// spread/bundle.pem in the state directory there, and to nobody else. A new bundle takes the place of the host's older
    /// ones.
    Bundle(SpreadBundle),
}

#[derive(Debug, Args)]
pub struct SpreadSend {
    /// A file, a directory with all that is in it, or an image: its tag, or the beginning of its id
    #[arg(value_name = "FILE|DIR|IMAGE", value_hint = ValueHint::AnyPath)]
    pub what: PathBuf,
    /// Hosts: names, addresses or sets of names, with a port if it is not the usual one: node[1-8],10.0.0.9:7000
    #[arg(long, required = true, value_name = "HOSTS")]
    pub to: Vec<String>,
    /// Hosts that have it already and where `oscarv spread receive` has run since: others get it from them, too
    #[arg(long, value_name = "HOSTS")]
    pub from: Vec<String>,
    /// Which switches hosts are at, as in Slurm's topology.conf; without it they stand as they are listed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub topology: Option<PathBuf>,
    /// What it is called there [default: its own name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// At most so many bytes (not bits) a second leave this host: 80M is 80 MiB, 512K is 512 KiB
    #[arg(long, value_name = "RATE")]
    pub limit: Option<spread::limit::Rate>,
    /// How many chains go out from here: as many as hosts' links fit into this host's
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub chains: u16,
    /// Send all of it also to hosts that have another version of it
    #[arg(long)]
    pub whole: bool,
    /// Send it as if it was made now: where a newer version is, too, to go back to an earlier one
    #[arg(long)]
    pub anew: bool,
    /// Ask who is there and has what, say who would get it from whom and how many bytes at most, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where hosts find this one, if a firewall lets through only some ports [default: all addresses, any port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    /// Take the processor and the disk only when nobody else wants them
    #[arg(long)]
    pub idle: bool,
    /// How long hosts that are not there are waited for, when all others have it
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::time::parse)]
    pub patience: Duration,
    #[command(flatten)]
    pub private: Private,
}

/// Private connections: TLS, both sides with a certificate
#[derive(Debug, Args)]
pub struct Private {
    /// Encrypt all connections; both sides need it, and a bundle of `oscarv spread bundle`
    #[arg(long)]
    pub private: bool,
    /// This host's bundle [default: spread/bundle.pem in the state directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "private")]
    pub bundle: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SpreadBundle {
    /// Hosts as `spread send --to` will name them, without ports: node[1-8], 10.0.0.9
    #[arg(value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Where to put the files
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub into: PathBuf,
    /// How many days they are valid
    #[arg(long, value_name = "N", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=7300))]
    pub days: u32,
    /// Make none: those that these hosts have are no longer taken when content is sent from here
    #[arg(long, requires = "hosts", conflicts_with_all = ["into", "days"])]
    pub revoke: bool,
}

#[derive(Debug, Args)]
pub struct SpreadSimulate {
    /// How many hosts
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub hosts: u32,
    /// Size of what is sent
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub size: api::MiB,
    /// What a host's link carries in a second, each way; 1 Gb/s Ethernet carries 114M of TCP
    #[arg(long, value_name = "RATE", default_value = "114M")]
    pub rate: api::MiB,
    /// What the source's link carries in a second [default: as a host's]
    #[arg(long, value_name = "RATE")]
    pub source_rate: Option<api::MiB>,
    /// How many chains go out from the source
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub chains: u16,
    /// A host whose link has only this part of the rate: 4:0.5 is the fourth host at half; 1%:0.5 is one of a hundred
    #[arg(long, value_name = "HOST:PART")]
    pub slow: Vec<String>,
    /// A host that is killed, as in 4:2s; 1% is one of a hundred, each at some time before the end
    #[arg(long, value_name = "HOST:TIME")]
    pub killed: Vec<String>,
    /// A host whose link is cut silently
    #[arg(long, value_name = "HOST:TIME")]
    pub cut: Vec<String>,
    /// A host that comes late
    #[arg(long, value_name = "HOST:TIME")]
    pub late: Vec<String>,
    /// A host that has it from the beginning, and gives it to others
    #[arg(long, value_name = "HOST")]
    pub have: Vec<u32>,
    /// When the source is killed
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse)]
    pub source_killed: Option<Duration>,
    /// Which hosts and times parts of a hundred are: the same for the same number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct SpreadReceive {
    /// Where files go
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub into: PathBuf,
    /// Whose files are taken: a public key of `oscarv spread key` or minisign, or a file with one [default: only this
    /// host's own]
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// Where to listen [default: port 7117 of all addresses]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    /// Replace files that did not come this way
    #[arg(long)]
    pub replace: bool,
    /// Change trees of files where they are, name by name, and do not replace them as a whole
    ///
    /// For trees that are in use, or large: only what is new is written, and what stays is not touched. While names change,
    /// for a moment, a tree is of both versions.
    #[arg(long)]
    pub in_place: bool,
    /// Take the processor and the disk only when nobody else wants them, on a host that runs VMs
    #[arg(long)]
    pub idle: bool,
    #[command(flatten)]
    pub private: Private,
}

#[derive(Debug, Args)]
pub struct Test {
    #[command(flatten)]
    pub cluster: OneCluster,
    /// How long each test may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = crate::time::parse)]
    pub time_limit: Duration,
    /// Only these tests: OPKGs by name, and `hpcc`; all of them otherwise
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub only: Vec<api::Name>,
    /// HPL's problem size: a matrix of N × N
    #[arg(long, value_name = "N", default_value_t = 240, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    pub hpcc_size: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_after_the_dashes_is_taken_as_it_is() {
        let cli = Cli::parse_from(["oscarv", "exec", "mpi:all", "--", "ls", "-q", "--output"]);
        let Command::Exec(exec) = cli.command else {
            panic!("not exec")
        };
        assert_eq!(exec.argv, ["ls", "-q", "--output"]);
        let cli = Cli::parse_from(["oscarv", "run", "--", "ls", "--", "-l"]);
        let Command::Run(run) = cli.command else {
            panic!("not run")
        };
        assert_eq!((run.cluster, run.argv.len()), (None, 3));
    }
}
