//! What every command needs: where VMs are kept, and how to speak.

use crate::args::Global;
use crate::source::Read;
use crate::vms::Vms;
use anyhow::{Context as _, Result};
use std::ops::Deref;
use std::path::PathBuf;
use terminal::Screen;

pub struct Context {
    pub state: PathBuf,
    screen: Screen,
}

/// Most of what a command wants of its context is to say something.
impl Deref for Context {
    type Target = Screen;
    fn deref(&self) -> &Screen {
        &self.screen
    }
}

impl Context {
    pub fn new(global: Global) -> Result<Self> {
        // Read here and not by clap, which would show it in the usage of whoever has it set.
        let variable = std::env::var_os("V2M_STATE").filter(|value| !value.is_empty());
        let state = match global.state.or_else(|| variable.map(PathBuf::from)) {
            Some(state) => state,
            None => terminal::default_state("v2m", "V2M_STATE")?,
        };
        let state = std::path::absolute(&state)
            .with_context(|| format!("{} is not a directory's path", state.display()))?;
        Ok(Self {
            state,
            screen: Screen::new(global.form),
        })
    }

    pub fn vms(&self) -> Vms {
        Vms::new(&self.state, &self.screen)
    }

    /// What was filled in, to those who want to know; of a profile in libv3m's form to all, since it was written for
    /// another hypervisor, and a VM of today's differs from what its author saw.
    pub fn filled_in(&self, read: &Read) {
        if self.verbose() || read.original {
            for note in &read.notes {
                self.say(format!("note: {note}"));
            }
        }
    }
}
