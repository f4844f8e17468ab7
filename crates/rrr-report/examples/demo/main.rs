//! Writes a report and a stand-alone chart from made-up data, to look at.
//!
//! `cargo run -p rrr-report --example demo -- report.html [classes] [branches]`

mod data;

use std::process::ExitCode;

use rrr_report::report::render_html;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: demo report.html [classes] [branches]");
        return ExitCode::from(2);
    };
    let mut number = |default| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (classes, branches): (usize, usize) = (number(20), number(8));
    let html = render_html(&data::report(classes.max(1), branches.max(1)));
    match std::fs::write(&path, html) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write {path}: {error}");
            ExitCode::FAILURE
        }
    }
}
