//! Numbers as text for people.

/// A fraction as a percentage with one decimal.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1}%", fraction * 100.0)
}

/// An optional fraction; a dash when there is none.
pub(super) fn percent_or_dash(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "–".to_owned(), percent)
}

/// A count with a metric prefix and three significant digits, such as `58.1 M`.
pub(super) fn metric(value: f64) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    for (scale, prefix) in prefixes {
        // 999_999 is 1.00 M rather than 1000 k.
        if value >= scale * 0.9995 {
            return format!("{} {prefix}", significant(value / scale));
        }
    }
    if value.fract() == 0.0 { format!("{value:.0}") } else { significant(value) }
}

/// A size in bytes with a metric prefix, such as `32.1 MB`.
pub(super) fn bytes(value: u64) -> String {
    let text = metric(value as f64);
    if text.contains(' ') { format!("{text}B") } else { format!("{text} B") }
}

/// How many times `whole` is `part`, such as `7.2×`; a dash when `part` is zero.
pub(super) fn factor(whole: f64, part: f64) -> String {
    if part > 0.0 && whole.is_finite() {
        format!("{}×", significant(whole / part))
    } else {
        "–".to_owned()
    }
}

/// A whole number with thin spaces between thousands.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A duration in its two largest units, such as `1 h 02 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 if seconds < 10.0 => format!("{:.1} s", seconds.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `count` with `noun`, in the plural unless it is one.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let count_text = grouped(count as u64);
    match (count, noun) {
        (1, _) => format!("{count_text} {noun}"),
        (_, "class") => format!("{count_text} classes"),
        (_, "branch") => format!("{count_text} branches"),
        _ => format!("{count_text} {noun}s"),
    }
}

fn significant(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(metric(58_123_456.0), "58.1 M");
        assert_eq!(metric(999_999.0), "1.00 M");
        assert_eq!(metric(512.0), "512");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(32_100_000), "32.1 MB");
        assert_eq!(factor(58.1, 8.0), "7.26×");
        assert_eq!(factor(1.0, 0.0), "–");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(61.0), "1 min 01 s");
        assert_eq!(duration(3725.0), "1 h 02 min");
        assert_eq!(counted(1, "branch"), "1 branch");
        assert_eq!(counted(20, "class"), "20 classes");
    }
}
