//! What every command needs: where the state is, how to print, which cluster is meant.

use crate::args::Global;
use crate::engine::{Access, Head};
use crate::exit::{Code, Failure};
use crate::target::{self, View};
use anyhow::{Context as _, Result};
use api::Name;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use terminal::Screen;

pub use terminal::file::read as read_file;
pub use terminal::{consent, print, runtime, small_runtime};

pub struct Context {
    pub global: Global,
    pub state: PathBuf,
    pub screen: Screen,
}

/// Most of what a command wants of its context is to say something.
impl Deref for Context {
    type Target = Screen;
    fn deref(&self) -> &Screen {
        &self.screen
    }
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
            None => terminal::default_state("oscarv", "OSCARV_STATE")?,
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
        Ok(Self {
            screen: Screen::new(global.form.clone()),
            global,
            state,
        })
    }

    pub fn head(&self) -> Result<Head> {
        let program =
            std::env::current_exe().context("the path of oscarv itself cannot be found")?;
        let packages = self.global.packages.iter().map(std::path::absolute);
        let packages = packages.collect::<Result<_, _>>().context("--packages")?;
        Ok(Head::open(&self.state, &program, packages)?)
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

/// The cluster of a file; what was filled in is told to those who want to know.
pub fn read_cluster(context: &Context, path: &Path) -> Result<profile::Cluster> {
    let (bytes, name) = read_file(path)?;
    let checked = profile::cluster_bytes(&bytes, &name)?;
    if context.verbose() {
        for note in &checked.notes {
            context.say(format!("note: {note}"));
        }
    }
    Ok(checked.value)
}
