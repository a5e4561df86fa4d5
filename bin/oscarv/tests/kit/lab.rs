//! For the tests with real VMs: where their state is, and what a cluster leaves on the machine.
