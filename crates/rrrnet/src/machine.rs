//! What the operating system tells about the machine and this process.

use std::fs;

/// The processor's name, where the system tells.
pub fn cpu_model() -> Option<String> {
    field("/proc/cpuinfo", "model name")
}

/// The most bytes of memory that this process has held at once since its start or [`forget_peak_resident`].
///
/// `None` where the system does not tell (it is Linux that does).
pub(crate) fn peak_resident() -> Option<u64> {
    let kib: u64 = field("/proc/self/status", "VmHWM")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Makes [`peak_resident`] start over; where the system does not allow it, nothing happens.
pub(crate) fn forget_peak_resident() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The first value of a file of `name: value` lines.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut values = text.lines().filter_map(|l| l.split_once(':')).filter(|(key, _)| key.trim() == name);
    values.next().map(|(_, value)| value.trim().to_string())
}

/// The date and time of `seconds` since 1970-01-01 00:00 UTC, such as `2025-03-01 12:00 UTC`.
///
/// The calendar is the proleptic Gregorian one, by Howard Hinnant's `civil_from_days`.
pub(crate) fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01: years begin in March, so that leap days end them.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3_600, second / 60 % 60)
}

/// [`utc`] of now.
pub(crate) fn utc_now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    utc(since.map_or(0, |d| d.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @SECONDS`
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_740_830_461, "2025-03-01 12:01 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_measured() {
        let before = peak_resident().unwrap();
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_resident().unwrap() >= before.max(held.len() as u64));
        drop(held);
        forget_peak_resident();
        assert!(peak_resident().is_some());
    }
}
