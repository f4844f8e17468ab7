//! Charts as SVG strings: [`line_chart`], [`bar_chart`], [`histogram`], [`heat_map`], [`reliability_diagram`],
//! [`scatter`], [`intervals`], [`critical_difference`].
//!
//! A chart has no colours of its own: its elements carry classes that [`STYLE`] gives colours, for light and dark
//! pages and for print. Put `STYLE` once into the page that shows charts, or make a file of one with
//! [`standalone`]. Every chart has a title and a description for screen readers, and values show on hover through
//! `<title>` elements, without scripts. All text given by the caller is escaped.

mod bar;
mod builder;
mod critical_difference;
mod heat_map;
mod histogram;
mod intervals;
mod line;
mod reliability;
mod scale;
mod scatter;
mod text;

pub use bar::{Bar, BarChart, bar_chart};
pub use critical_difference::{CriticalDifference, critical_difference};
pub use heat_map::{HeatMap, heat_map};
pub use histogram::{Histogram, histogram};
pub use intervals::{Interval, Intervals, intervals};
pub use line::{LineChart, Series, Stroke, line_chart};
pub use reliability::reliability_diagram;
pub use scale::{Unit, ticks};
pub use scatter::{Point, Scatter, scatter};
pub use text::escape;

/// The charts' style sheet.
pub const STYLE: &str = include_str!("style.css");

/// A title and a description, read out by screen readers.
#[derive(Debug, Clone, Copy)]
pub struct Caption<'a> {
    /// What the chart shows, in a few words.
    pub title: &'a str,
    /// What it says, in a sentence or two.
    pub description: &'a str,
}

/// Makes a chart a file of its own by adding [`STYLE`] to it.
pub fn standalone(chart: &str) -> String {
    match chart.find('>') {
        Some(end) => format!("{}<style>{STYLE}</style>{}", &chart[..=end], &chart[end + 1..]),
        None => chart.to_owned(),
    }
}
