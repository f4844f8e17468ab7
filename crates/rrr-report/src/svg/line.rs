use super::Caption;
use super::builder::{Frame, Svg, number};
use super::scale::{Scale, Unit};
use super::text::width;

/// How a line is drawn, so that series differ in more than colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stroke {
    /// Unbroken.
    #[default]
    Solid,
    /// Dashed.
    Dashed,
}

/// One line of a line chart; the first three of a chart have colours of their own.
#[derive(Debug, Clone)]
pub struct Series<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// Points by rising x; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub stroke: Stroke,
}

/// Lines over a common x axis.
#[derive(Debug, Clone)]
pub struct LineChart<'a> {
    /// Title and description.
    pub caption: Caption<'a>,
    /// What the x axis counts.
    pub x_label: &'a str,
    /// The lines.
    pub series: &'a [Series<'a>],
    /// How y values are written.
    pub unit: Unit,
    /// Fixed range of the y axis; from 0 (or the smallest value, if negative) to the largest when none.
    pub y_range: Option<(f64, f64)>,
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 260.0;
/// More points than this are drawn without dots.
const MAX_DOTS: usize = 30;
/// More positions than this are thinned out for hovering.
const MAX_HOVER: usize = 300;

/// Draws a line chart. Without any finite point the axes stay empty.
pub fn line_chart(chart: &LineChart<'_>) -> String {
    let series: Vec<Series<'_>> = chart.series.iter().map(finite).collect();
    let points = || series.iter().flat_map(|s| &s.points);
    let x_range = range(points().map(|p| p.0)).unwrap_or((0.0, 1.0));
    let frame = Frame { left: 52.0, top: 32.0, right: WIDTH - 14.0, bottom: HEIGHT - 40.0 };
    let y_pixels = (frame.bottom, frame.top);
    let y = match chart.y_range {
        Some(fixed) => Scale::new(fixed, y_pixels),
        None => {
            let (low, high) = range(points().map(|p| p.1)).unwrap_or((0.0, 1.0));
            let low = low.min(0.0);
            Scale::rounded_up((low, if high > low { high } else { low + 1.0 }), y_pixels, 5)
        }
    };
    let x = Scale::new(x_range, (frame.left, frame.right));

    let mut svg = Svg::new(WIDTH, HEIGHT, chart.caption);
    svg.y_axis(frame, &y, chart.unit, 5);
    svg.x_axis(frame, &x, Unit::Number, 6, false);
    svg.line("axis", (frame.left, frame.bottom), (frame.right, frame.bottom));
    svg.text(((frame.left + frame.right) / 2.0, HEIGHT - 6.0), "label", "middle", chart.x_label);
    legend(&mut svg, &series, frame.left);
    for (index, line) in series.iter().enumerate() {
        let colour = format!("s{}", index % 3);
        let dashed = if line.stroke == Stroke::Dashed { " dashed" } else { "" };
        let pixels = || line.points.iter().map(|&(at, value)| (x.at(at), y.at(value)));
        svg.polyline(&format!("series {colour}{dashed}"), pixels());
        if line.points.len() <= MAX_DOTS {
            for (cx, cy) in pixels() {
                let (cx, cy) = (number(cx), number(cy));
                svg.push(&format!("<circle class=\"dot {colour}\" cx=\"{cx}\" cy=\"{cy}\" r=\"2\"/>"));
            }
        }
    }
    hover(&mut svg, chart, &series, &x, frame);
    svg.finish()
}

fn finite<'a>(series: &Series<'a>) -> Series<'a> {
    let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    Series { points, ..*series }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

fn legend(svg: &mut Svg, series: &[Series<'_>], left: f64) {
    let mut x = left;
    for (index, line) in series.iter().enumerate() {
        let dashed = if line.stroke == Stroke::Dashed { " dashed" } else { "" };
        svg.line(&format!("series s{}{dashed}", index % 3), (x, 14.0), (x + 22.0, 14.0));
        svg.text((x + 28.0, 18.0), "label", "start", line.name);
        x += 28.0 + width(line.name, 11.5) + 18.0;
    }
}

/// Invisible columns that tell the values at their x position.
fn hover(svg: &mut Svg, chart: &LineChart<'_>, series: &[Series<'_>], x: &Scale, frame: Frame) {
    let mut positions: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    positions.sort_by(f64::total_cmp);
    positions.dedup();
    let stride = positions.len().div_ceil(MAX_HOVER).max(1);
    let positions: Vec<f64> = positions.into_iter().step_by(stride).collect();
    for (index, &at) in positions.iter().enumerate() {
        let middle = |other: f64| (x.at(at) + x.at(other)) / 2.0;
        let from = if index == 0 { frame.left } else { middle(positions[index - 1]) };
        let to = positions.get(index + 1).map_or(frame.right, |&next| middle(next));
        let mut text = format!("{} {}", chart.x_label, Unit::Number.value(at));
        for line in series {
            let found = line.points.binary_search_by(|point| point.0.total_cmp(&at));
            if let Ok(found) = found {
                text.push_str(&format!("\n{}: {}", line.name, chart.unit.value(line.points[found].1)));
            }
        }
        svg.rect("class=\"hover\"", (from, frame.top), (to - from, frame.bottom - frame.top), &text);
    }
}
