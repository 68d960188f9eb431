//! Where an authority is.

use std::path::PathBuf;

use clap::Args;

/// Where an authority's data is.
#[derive(Debug, Args)]
pub struct DataDir {
    /// The authority's data directory.
    #[arg(long, value_name = "DIR", env = "MACHINE_ID_DATA_DIR", hide_env_values = true)]
    pub data_dir: PathBuf,
}
