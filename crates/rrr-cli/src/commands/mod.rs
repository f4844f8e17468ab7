//! One module per subcommand.

pub mod backbone;
pub mod bench;
pub mod completions;
pub mod eval;
pub mod inspect;
pub mod plan;
pub mod predict;
pub mod quantize;
pub mod quickstart;
pub mod reduce;
pub mod suite;
pub mod train;
