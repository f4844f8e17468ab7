//! Why a configuration cannot be used.

use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key or a value of the wrong kind.
    #[error("{}, line {line}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong; names the key.
        message: String,
    },
    /// The configuration in a file cannot be used.
    #[error("{}: {source}", path.display())]
    Within {
        /// The file.
        path: PathBuf,
        /// What is wrong there.
        source: Box<ConfigError>,
    },
    /// No recipe has this name.
    #[error("there is no recipe `{name}`\nhint: the recipes are {}", known.join(", "))]
    UnknownRecipe {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A value without a default is absent.
    #[error("no {key} given\nhint: {hint}")]
    Missing {
        /// The key.
        key: &'static str,
        /// Where to give it.
        hint: &'static str,
    },
    /// A value is outside its range.
    #[error("{key} = {value} makes no sense: {reason}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// A setting has no meaning for the chosen method.
    #[error("{key} has no meaning for method {method}: {reason}")]
    NotForMethod {
        /// The key.
        key: &'static str,
        /// The method.
        method: crate::config::Method,
        /// Why.
        reason: &'static str,
    },
}
