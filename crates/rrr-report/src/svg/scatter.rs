use super::Caption;
use super::builder::{Frame, Svg, number};
use super::scale::{Scale, Unit};
use super::text::{escape, shorten, width};

/// A named point.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// Label beside it.
    pub label: &'a str,
    /// Position to the right.
    pub x: f64,
    /// Height.
    pub y: f64,
    /// Drawn in the accent colour.
    pub strong: bool,
}

/// Named points on two axes.
#[derive(Debug, Clone)]
pub struct Scatter<'a> {
    /// Title and description.
    pub caption: Caption<'a>,
    /// What the x axis measures.
    pub x_label: &'a str,
    /// The points; those that are not finite are left out, and on a logarithmic axis those not above zero.
    pub points: &'a [Point<'a>],
    /// Logarithmic x axis.
    pub log_x: bool,
    /// How y values are written.
    pub y_unit: Unit,
    /// Indices of points to join, such as a Pareto front.
    pub front: &'a [usize],
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 280.0;
const MAX_LABEL: usize = 22;

/// Draws a scatter plot.
pub fn scatter(chart: &Scatter<'_>) -> String {
    let drawn = |p: &&Point<'_>| p.x.is_finite() && p.y.is_finite() && (!chart.log_x || p.x > 0.0);
    let points: Vec<&Point<'_>> = chart.points.iter().filter(drawn).collect();
    let place = |x: f64| if chart.log_x { x.log10() } else { x };
    let frame = Frame { left: 52.0, top: 14.0, right: WIDTH - 16.0, bottom: HEIGHT - 40.0 };
    let x = padded(points.iter().map(|p| place(p.x)), 0.08, (frame.left, frame.right));
    let y = padded(points.iter().map(|p| p.y), 0.12, (frame.bottom, frame.top));

    let mut svg = Svg::new(WIDTH, HEIGHT, chart.caption);
    svg.y_axis(frame, &y, chart.y_unit, 5);
    svg.line("axis", (frame.left, frame.bottom), (frame.right, frame.bottom));
    if chart.log_x {
        log_axis(&mut svg, frame, &x);
    } else {
        svg.x_axis(frame, &x, Unit::Number, 5, false);
    }
    svg.text(((frame.left + frame.right) / 2.0, HEIGHT - 6.0), "label", "middle", chart.x_label);
    let front = chart.front.iter().filter_map(|i| chart.points.get(*i)).filter(drawn);
    let front: Vec<(f64, f64)> = front.map(|p| (x.at(place(p.x)), y.at(p.y))).collect();
    if front.len() > 1 {
        svg.polyline("reference", front.into_iter());
    }
    let at = |p: &Point<'_>| (x.at(place(p.x)), y.at(p.y));
    // Left, right, top and bottom of what labels must not cover: the points and other labels.
    let mut taken: Vec<(f64, f64, f64, f64)> = Vec::new();
    taken.extend(points.iter().map(|p| at(p)).map(|(cx, cy)| (cx - 4.5, cx + 4.5, cy - 4.5, cy + 4.5)));
    for p in points {
        let (cx, cy) = at(p);
        let class = if p.strong { "dot s0" } else { "dot s2" };
        let hover = format!("{}: {}, {}", p.label, chart.y_unit.value(p.y), p.x);
        svg.push(&format!(
            "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"4.5\"><title>{}</title></circle>",
            number(cx),
            number(cy),
            escape(&hover)
        ));
        let label = shorten(p.label, MAX_LABEL);
        let wide = width(&label, 11.5);
        // Beside the point, above or below it: where no other label is yet.
        let candidates = [(8.0, 4.0), (-8.0 - wide, 4.0), (-wide / 2.0, -9.0), (-wide / 2.0, 17.0)];
        let spot = candidates.into_iter().map(|(dx, dy)| (cx + dx, cy + dy)).find(|&(left, base)| {
            let inside = left >= frame.left && left + wide <= WIDTH && base < frame.bottom;
            inside && taken.iter().all(|t| left + wide < t.0 || left > t.1 || base - 11.0 > t.3 || base < t.2)
        });
        if let Some((left, base)) = spot {
            taken.push((left, left + wide, base - 11.0, base));
            svg.text((left, base), "label", "start", &label);
        }
    }
    svg.finish()
}

/// A scale over the values, wider by `share` of their range on both ends.
fn padded(values: impl Iterator<Item = f64> + Clone, share: f64, pixels: (f64, f64)) -> Scale {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    match high - low {
        span if span > 0.0 => Scale::new((low - share * span, high + share * span), pixels),
        0.0 => Scale::new((low - 0.05, high + 0.05), pixels),
        _ => Scale::new((0.0, 1.0), pixels),
    }
}

/// Ticks at 1, 2 and 5 times powers of ten.
fn log_axis(svg: &mut Svg, frame: Frame, x: &Scale) {
    let mut last = f64::NEG_INFINITY;
    for power in x.low.floor() as i32..=x.high.ceil() as i32 {
        for digit in [1.0f64, 2.0, 5.0] {
            let at = f64::from(power) + digit.log10();
            let pixel = x.at(at);
            if (x.low..=x.high).contains(&at) && pixel - last > 26.0 {
                svg.text((pixel, frame.bottom + 16.0), "tick", "middle", &short(digit * 10f64.powi(power)));
                last = pixel;
            }
        }
    }
}

/// A number of one digit with a metric prefix.
fn short(value: f64) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match prefixes.into_iter().find(|(scale, _)| value >= scale * 0.999) {
        Some((scale, prefix)) => format!("{:.0} {prefix}", value / scale),
        None if value >= 0.999 => format!("{value:.0}"),
        None => format!("{value:.4}").trim_end_matches('0').to_owned(),
    }
}
