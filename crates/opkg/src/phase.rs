//! The moments in a cluster's life at which a package may run a script.

use std::fmt;
use std::str::FromStr;

/// In the order of a cluster's life. The file `scripts/<phase>` bears the phase's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// On the head, before the package's questions are asked.
    ApiPreConfigure,
    /// On the head, with the answers known.
    ApiPostConfigure,
    ServerPreInstall,
    /// On the head node, at its first boot.
    ServerPostInstall,
    ClientPreInstall,
    /// On every other node, at its first boot.
    ClientPostInstall,
    /// In the image, when it is built.
    ApiPostImage,
    /// Nodes are defined, none is installed.
    ApiPostClientdef,
    /// On the head node, when all nodes are ready.
    ApiPostDeploy,
    ServerPreUninstall,
    ServerPostUninstall,
    ClientPreUninstall,
    ClientPostUninstall,
}

impl Phase {
    pub const ALL: [Self; 13] = [
        Self::ApiPreConfigure,
        Self::ApiPostConfigure,
        Self::ServerPreInstall,
        Self::ServerPostInstall,
        Self::ClientPreInstall,
        Self::ClientPostInstall,
        Self::ApiPostImage,
        Self::ApiPostClientdef,
        Self::ApiPostDeploy,
        Self::ServerPreUninstall,
        Self::ServerPostUninstall,
        Self::ClientPreUninstall,
        Self::ClientPostUninstall,
    ];

    /// The phases that are run today; a script of another one is legal and waits for its day.
    pub const RUN: [Self; 4] = [
        Self::ApiPostImage,
        Self::ServerPostInstall,
        Self::ClientPostInstall,
        Self::ApiPostDeploy,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiPreConfigure => "api-pre-configure",
            Self::ApiPostConfigure => "api-post-configure",
            Self::ServerPreInstall => "server-pre-install",
            Self::ServerPostInstall => "server-post-install",
            Self::ClientPreInstall => "client-pre-install",
            Self::ClientPostInstall => "client-post-install",
            Self::ApiPostImage => "api-post-image",
            Self::ApiPostClientdef => "api-post-clientdef",
            Self::ApiPostDeploy => "api-post-deploy",
            Self::ServerPreUninstall => "server-pre-uninstall",
            Self::ServerPostUninstall => "server-post-uninstall",
            Self::ClientPreUninstall => "client-pre-uninstall",
            Self::ClientPostUninstall => "client-post-uninstall",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No phase has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a phase")]
pub struct UnknownPhase(String);

impl FromStr for Phase {
    type Err = UnknownPhase;
    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}
