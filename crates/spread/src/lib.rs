//! A file on many hosts in the time of one, verified.
//!
//! The source cuts the file into frames, and each host passes on to the next what it gets, while it still comes: a
//! chain. Its time is that of one copy, whatever the number of hosts. A host asks its parent for "this transfer, from
//! this frame and offset on", so whoever loses its parent goes on with another one from where it stands.
//!
//! | module | what it has |
//! |---|---|
//! | `manifest`, `sign` | frames, pages and what proves them |
//! | `blocks`, `chunks` | what two versions have in common, of a file and of a tree |
//! | `tar`, `tree`, `content` | a tree as one stream of bytes; what a source sends |
//! | `transfer` | a file on its way: what is known of it and where its bytes are |
//! | `source`, `level`, `pack` | makes a transfer of a file; how hard that compresses |
//! | `version`, `prepared` | which file is sent, and what a source remembers of those that it has sent |
//! | `serve`, `pull` | parent's and child's side of a connection for data |
//! | `stream`, `tls`, `verify`, `authority` | plain and private connections, and who may make private ones |
//! | `port`, `gate`, `mend` | where a host listens; who may come in; frames that have to come again |
//! | `keeper`, `place`, `seen`, `rereading` | checks what comes, puts it on disk, and knows it again |
//! | `unpack`, `unpacking`, `filling` | makes a tree of its stream and of the version before, while it comes |
//! | `update` | makes the tree that is there the next version, name by name |
//! | `layout`, `topology` | racks and switches, and the file that has them |
//! | `speed` | how fast this host's links are |
//! | `chain` | who has it from whom: decisions only |
//! | `send`, `receive` | the source, which leads, and the hosts |
//! | `limit`, `idle` | to take less than there is |
//! | `places` | who is served, so that no host takes the places of others |
//! | `standing` | hosts that are given up |
//! | `simulate` | the same decisions on hosts that are numbers |

#![allow(unexpected_cfgs, reason = "fuzzing is set by cargo-fuzz")]

pub mod authority;
mod blocks;
pub mod chain;
mod chunks;
mod content;
mod filling;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod idle;
mod keeper;
pub mod layout;
mod level;
pub mod limit;
pub mod manifest;
mod mend;
mod mounts;
mod pack;
mod place;
mod places;
pub mod port;
mod prepared;
mod pull;
pub mod receive;
mod rereading;
mod secret;
mod seen;
pub mod send;
mod serve;
pub mod sign;
pub mod simulate;
pub mod source;
mod speed;
mod standing;
mod stream;
mod tar;
pub mod tls;
pub mod topology;
mod transfer;
mod tree;
mod unpack;
mod unpacking;
mod update;
mod verify;
pub mod version;
mod wire;

pub use transfer::Transfer;
