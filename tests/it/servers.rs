//! What is issued, in the hands of those that it is for: the programs that
//! `tests/run` installs. `tests/run quick` leaves these out.

mod action;
mod agent;
mod backup;
mod compromised;
mod database;
mod demo;
mod disk;
mod faults;
mod hosts;
mod iam;
mod installed;
mod kubernetes;
mod locks;
mod logins;
mod moves;
mod outputs;
mod proxy;
mod replicas;
mod rotation;
mod rotation_page;
mod sealed;
mod sessions;
mod suites;
mod thrown_out;
mod tokens;
mod walk;
mod watchers;
