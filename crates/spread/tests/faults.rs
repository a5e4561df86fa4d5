//! What goes wrong, and what must not: processes that are killed, networks that fail, disks that are full, hosts that lie.

#![allow(clippy::unwrap_used)]

mod kit;

mod faults {
    mod again;
    mod blame;
    mod disk;
    mod firewall;
    mod hostile;
    mod killed;
    mod lab;
    mod limit;
    mod meanwhile;
    mod net;
    mod network;
    mod shared;
    mod silence;
    mod source;
    mod trees;
    mod wicked;
}
