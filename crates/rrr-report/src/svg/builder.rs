use super::Caption;
use super::scale::{Scale, Unit};
use super::text::escape;

/// An SVG under construction.
pub(super) struct Svg {
    text: String,
}

/// The plotting area of a chart with axes, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64, caption: Caption<'_>) -> Self {
        let (title, description) = (escape(caption.title), escape(caption.description));
        let (width, height) = (number(width), number(height));
        Self {
            text: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" role=\"img\" aria-label=\"{title}\" \
                 width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\
                 <title>{title}</title><desc>{description}</desc>"
            ),
        }
    }

    /// Text of class `class`; `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: &str, content: &str) {
        self.push(&format!(
            "<text x=\"{}\" y=\"{}\" class=\"{class}\" text-anchor=\"{anchor}\">{}</text>",
            number(x),
            number(y),
            escape(content)
        ));
    }

    /// Text turned a quarter to the left about its anchor.
    pub(super) fn upright_text(&mut self, (x, y): (f64, f64), attributes: &str, anchor: &str, content: &str) {
        let (x, y) = (number(x), number(y));
        self.push(&format!(
            "<text transform=\"translate({x} {y}) rotate(-90)\" {attributes} text-anchor=\"{anchor}\">{}</text>",
            escape(content)
        ));
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.push(&format!(
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            number(x1),
            number(y1),
            number(x2),
            number(y2)
        ));
    }

    /// A rectangle with further `attributes` and a text shown on hover (none when empty).
    pub(super) fn rect(
        &mut self,
        attributes: &str,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        hover: &str,
    ) {
        let (x, y, width, height) = (number(x), number(y), number(width.max(0.0)), number(height.max(0.0)));
        let open = format!("<rect {attributes} x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
        self.push(&open);
        if hover.is_empty() {
            self.push("/>");
        } else {
            self.push(&format!("><title>{}</title></rect>", escape(hover)));
        }
    }

    pub(super) fn polyline(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let points: Vec<String> = points.map(|(x, y)| format!("{},{}", number(x), number(y))).collect();
        self.push(&format!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" ")));
    }

    /// Adds markup that the caller has made safe.
    pub(super) fn push(&mut self, markup: &str) {
        self.text.push_str(markup);
    }

    /// Horizontal grid lines with values on the left.
    pub(super) fn y_axis(&mut self, frame: Frame, scale: &Scale, unit: Unit, target: usize) {
        let (positions, step) = scale.ticks(target);
        for value in positions {
            let y = scale.at(value);
            self.line("grid", (frame.left, y), (frame.right, y));
            self.text((frame.left - 6.0, y + 4.0), "tick", "end", &unit.tick(value, step));
        }
    }

    /// Values below the frame, with grid lines through it if `grid`.
    pub(super) fn x_axis(&mut self, frame: Frame, scale: &Scale, unit: Unit, target: usize, grid: bool) {
        let (positions, step) = scale.ticks(target);
        for value in positions {
            let x = scale.at(value);
            if grid {
                self.line("grid", (x, frame.top), (x, frame.bottom));
            }
            self.text((x, frame.bottom + 16.0), "tick", "middle", &unit.tick(value, step));
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// A coordinate, to a hundredth of a pixel, without trailing zeros.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}
