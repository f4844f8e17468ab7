//! The report of a suite: one HTML page, Markdown, LaTeX, every figure as SVG and as data.

mod data;
mod figures;
mod html;
mod latex;
mod markdown;
mod text;

pub use data::{CellSummary, Chain, Comparison, MethodSummary, Pair, Report};
pub use figures::Figure;

use crate::error::{Result, SuiteError};
use std::path::{Path, PathBuf};

impl Report {
    /// Writes the report to the folder `out`: `index.html`, `report.md`, `tables.tex`, `report.json`, `results.csv`, and
    /// `figures/` with every figure as `.svg` and `.csv`. Gives the files.
    ///
    /// # Errors
    /// [`SuiteError`] names the file that cannot be written.
    pub fn write(&self, out: &Path) -> Result<Vec<PathBuf>> {
        let folder = out.join("figures");
        std::fs::create_dir_all(&folder).map_err(|e| SuiteError::file("make the folder", &folder, e))?;
        let figures = figures::figures(self);
        let mut json = serde_json::to_vec_pretty(self).expect("a report is plain values");
        json.push(b'\n');
        let mut files: Vec<(PathBuf, Vec<u8>)> = vec![
            (out.join("index.html"), html::page(self, &figures).into_bytes()),
            (out.join("report.md"), markdown::page(self, &figures).into_bytes()),
            (out.join("tables.tex"), latex::tables(self).into_bytes()),
            (out.join("report.json"), json),
            (out.join("results.csv"), crate::export::table(&self.rows).to_csv()),
        ];
        for figure in &figures {
            let svg = rrr_report::svg::standalone(&figure.svg);
            files.push((folder.join(format!("{}.svg", figure.name)), svg.into_bytes()));
            files.push((folder.join(format!("{}.csv", figure.name)), figure.csv.clone().into_bytes()));
        }
        for (path, bytes) in &files {
            rrr_checkpoint::atomic_write(path, bytes)?;
        }
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }
}
