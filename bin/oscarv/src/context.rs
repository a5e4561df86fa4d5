//! What every command needs: where the state is, how to print, which cluster is meant.

use crate::args::{Global, Output, When};
use crate::engine::{Access, Head};
use crate::exit::{Code, Failure};
use crate::progress::Shown;
use crate::table::Table;
use crate::target::{self, View};
use anyhow::{Context as _, Result};
use api::Name;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

pub struct Context {
    pub global: Global,
    pub state: PathBuf,
    /// Colours on standard output.
    pub colored: bool,
    /// Colours on standard error.
    pub colored_messages: bool,
}

impl Context {
    pub fn new(mut global: Global) -> Result<Self> {
        // Read here and not by clap, which would show them in the usage of whoever has them set.
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let state = match global
            .state
            .clone()
            .or_else(|| variable("OSCARV_STATE").map(PathBuf::from))
        {
            Some(state) => state,
            None => default_state()?,
        };
        if let Some(name) = variable("OSCARV_CLUSTER").filter(|_| global.cluster.is_none()) {
            let name = name.to_string_lossy().into_owned();
            global.cluster = Some(Name::new(&name).map_err(|why| {
                Failure::new(
                    Code::Usage,
                    format!("OSCARV_CLUSTER names no cluster: {why}"),
                )
            })?);
        }
        let state = std::path::absolute(&state)
            .with_context(|| format!("{} is not a directory's path", state.display()))?;
        let colored = colors(global.color, std::io::stdout().is_terminal());
        let colored_messages = colors(global.color, std::io::stderr().is_terminal());
        Ok(Self {
            global,
            state,
            colored,
            colored_messages,
        })
    }

    pub fn head(&self) -> Result<Head> {
        let program =
            std::env::current_exe().context("the path of oscarv itself cannot be found")?;
        let packages = self.global.packages.iter().map(std::path::absolute);
        let packages = packages.collect::<Result<_, _>>().context("--packages")?;
        Ok(Head::open(&self.state, &program, packages)?)
    }

    pub fn json(&self) -> bool {
        self.global.output == Output::Json
    }

    pub fn progress(&self) -> Shown {
        let Global {
            progress, quiet, ..
        } = self.global;
        Shown::new(progress, quiet, self.colored_messages)
    }

    /// A message to the person: not a result.
    pub fn say(&self, message: impl AsRef<str>) {
        if !self.global.quiet {
            let _ = writeln!(std::io::stderr(), "{}", message.as_ref());
        }
    }

    /// A result: a table, or one JSON document.
    pub fn result<T: Serialize>(&self, value: &T, table: impl FnOnce() -> Table) -> Result<()> {
        if self.json() {
            self.document(value)
        } else {
            print(table().render(self.colored))
        }
    }

    pub fn document<T: Serialize>(&self, value: &T) -> Result<()> {
        print(serde_json::to_string_pretty(value)? + "\n")
    }

    /// The cluster that is meant: named here, by -c, or the only one.
    pub fn cluster(&self, head: &Head, named: Option<&Name>) -> Result<Name> {
        if let Some(name) = named.or(self.global.cluster.as_ref()) {
            return Ok(name.clone());
        }
        let all = head.names()?;
        match all.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(Failure::new(Code::NotFound, "there is no cluster")
                .hint("make one with: oscarv up FILE")
                .into()),
            all => {
                let names: Vec<_> = all.iter().map(Name::as_str).collect();
                let message = format!("there are {} clusters; which one?", all.len());
                let hint = format!("name one of {}, by -c or OSCARV_CLUSTER", names.join(", "));
                Err(Failure::new(Code::Usage, message).hint(hint).into())
            }
        }
    }

    /// The nodes of a target, and the way to them.
    pub fn nodes(&self, text: &str) -> Result<(Access, Vec<Name>)> {
        let (access, view, set) = self.target(text)?;
        let nodes = target::select(&set, &view)?;
        Ok((access, nodes))
    }

    /// The one node of a target, and the way to it.
    pub fn node(&self, text: &str) -> Result<(Access, Name)> {
        let (access, view, set) = self.target(text)?;
        let node = target::one(&set, &view)?;
        Ok((access, node))
    }

    fn target(&self, text: &str) -> Result<(Access, View, String)> {
        let target = target::parse(text)?;
        let head = self.head()?;
        let cluster = self.cluster(&head, target.cluster.as_ref())?;
        let access = head.access(&cluster)?;
        let nodes = access.nodes.iter();
        let view = View {
            cluster,
            head: access.head.clone(),
            nodes: nodes.map(|n| (n.name.clone(), n.group.clone())).collect(),
        };
        Ok((access, view, target.set))
    }

    /// ssh to the nodes of a cluster; what it starts to get there finds the same state.
    pub fn ssh(&self, access: &Access, user: Option<Name>) -> remote::Ssh {
        remote::Ssh::new(&access.ssh_config)
            .as_user(user)
            .with_env("OSCARV_STATE", &self.state)
    }
}

/// Asks on the terminal. Without one the answer must have been given before, by `flag`.
pub fn consent(question: &str, flag: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(
            Failure::new(Code::Usage, format!("{question} Nobody is here to answer"))
                .hint(format!("say yes beforehand with {flag}"))
                .into(),
        );
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Code::Failed, "nothing was done").into()),
    }
}

/// To standard output. A reader that has gone (`| head`) ends us, as it ends others.
pub fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_ref())
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(141),
        Err(e) => Err(e).context("standard output cannot be written"),
        Ok(()) => Ok(()),
    }
}

pub fn colors(when: When, terminal: bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        // https://no-color.org
        When::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

/// Root has the machine's place, others have their own by the XDG Base Directory Specification.
fn default_state() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/oscarv"));
    }
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|p| p.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    let data = data.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "no place for clusters and images: HOME is not set",
        )
        .hint("name one with --state DIR or OSCARV_STATE")
    })?;
    Ok(data.join("oscarv"))
}

/// A file's bytes; `-` is standard input. No more is read than a cluster file may have, and one byte.
pub fn read_file(path: &Path) -> Result<(Vec<u8>, String)> {
    use std::io::Read;
    let most = profile::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes)?;
        return Ok((bytes, "<stdin>".to_owned()));
    }
    let name = path.display().to_string();
    let read = std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok((bytes, name)),
        Err(e) => Err(Failure::new(Code::Usage, format!("{name} cannot be read: {e}")).into()),
    }
}

/// The cluster of a file; what was filled in is told to those who want to know.
pub fn read_cluster(context: &Context, path: &Path) -> Result<profile::Cluster> {
    let (bytes, name) = read_file(path)?;
    let checked = profile::cluster_bytes(&bytes, &name)?;
    if context.global.verbose > 0 {
        for note in &checked.notes {
            context.say(format!("note: {note}"));
        }
    }
    Ok(checked.value)
}

/// For commands that do many things at once.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    built.context("threads could not be started")
}

/// For commands that mostly wait.
pub fn small_runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    built.context("the event loop could not be started")
}
