/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// As they are.
    #[default]
    Number,
    /// Fractions as percentages.
    Percent,
}

impl Unit {
    /// `value`, one of a set of ticks that are `step` apart.
    pub(super) fn tick(self, value: f64, step: f64) -> String {
        match self {
            Unit::Percent => format!("{:.*}%", decimals(step * 100.0), value * 100.0 + 0.0),
            Unit::Number if step < 1e-3 && value != 0.0 => scientific(value, step),
            Unit::Number if step < 1e-3 => "0".to_owned(),
            Unit::Number => format!("{:.*}", decimals(step), value + 0.0),
        }
    }

    /// `value` on its own, with about three significant digits.
    pub(super) fn value(self, value: f64) -> String {
        match self {
            Unit::Percent => format!("{:.1}%", value * 100.0),
            Unit::Number if value != 0.0 && value.abs() < 1e-3 => format!("{value:.2e}"),
            Unit::Number if value.abs() >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
            Unit::Number => format!("{value:.3}"),
        }
    }
}

fn decimals(step: f64) -> usize {
    // The small term keeps steps such as 0.1, whose logarithm is not exact, from gaining a digit.
    (-(step.log10() + 1e-9).floor()).clamp(0.0, 12.0) as usize
}

fn scientific(value: f64, step: f64) -> String {
    let exponent = value.abs().log10().floor();
    let digits = (exponent - (step.log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, power)) if mantissa.contains('.') => {
            format!("{}e{power}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// Round tick positions inside `low..=high`, about `target` of them, 1, 2 or 5 times a power of ten apart.
///
/// Returns the positions and the step between them. An empty or non-finite range gives one tick at `low`.
pub fn ticks(low: f64, high: f64, target: usize) -> (Vec<f64>, f64) {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return (vec![low], 1.0);
    }
    let step = nice_step(span / target.max(1) as f64);
    let first = (low / step - 1e-9).ceil();
    let count = ((high / step + 1e-9).floor() - first).max(0.0) as usize;
    ((0..=count).map(|i| (first + i as f64) * step).collect(), step)
}

fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = match rough / power {
        f if f <= 1.0 => 1.0,
        f if f <= 2.0 => 2.0,
        f if f <= 5.0 => 5.0,
        _ => 10.0,
    };
    factor * power
}

/// Maps a range of values to a range of pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Values `low..=high` to pixels `from..=to`; an empty range of values is widened around its one value.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
        Self { low, high, from, to }
    }

    /// Like [`Scale::new`], with `high` raised to the next round tick.
    pub(super) fn rounded_up((low, high): (f64, f64), pixels: (f64, f64), target: usize) -> Self {
        let scale = Self::new((low, high), pixels);
        let (_, step) = ticks(scale.low, scale.high, target);
        Self { high: (scale.high / step - 1e-9).ceil() * step, ..scale }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    pub(super) fn ticks(&self, target: usize) -> (Vec<f64>, f64) {
        ticks(self.low, self.high, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, target: usize, unit: Unit) -> Vec<String> {
        let (positions, step) = ticks(low, high, target);
        positions.iter().map(|&p| unit.tick(p, step)).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.0, 1.0, 5, Unit::Percent), ["0%", "20%", "40%", "60%", "80%", "100%"]);
        assert_eq!(labels(0.0, 2.9, 5, Unit::Number), ["0", "1", "2"]);
        assert_eq!(labels(0.0, 0.5, 5, Unit::Number), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(labels(0.0, 1e-3, 5, Unit::Number), ["0", "2e-4", "4e-4", "6e-4", "8e-4", "1e-3"]);
        assert_eq!(labels(1.0, 300.0, 6, Unit::Number), ["50", "100", "150", "200", "250", "300"]);
    }

    #[test]
    fn degenerate_ranges_have_one_tick() {
        assert_eq!(ticks(3.0, 3.0, 5).0, [3.0]);
        assert_eq!(ticks(0.0, f64::NAN, 5).0, [0.0]);
        assert_eq!(Scale::new((2.0, 2.0), (0.0, 10.0)).at(2.0), 5.0);
    }
}
