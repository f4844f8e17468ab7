//! Talking to people: errors, hints and notes on standard error, in colour where that is wanted.

use clap::ValueEnum;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use tracing_subscriber::filter::LevelFilter;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A name with its control characters escaped: file and class names may have line breaks, what moves a cursor, and what
/// turns the direction of the text around it.
pub fn visible(name: impl Display) -> String {
    let mut text = String::new();
    for c in name.to_string().chars() {
        if c.is_control() || turns_text(c) { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

/// Whether it is one of Unicode's `Bidi_Control` characters (UAX #9).
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A message with the control characters of all names in it escaped, but for its own line breaks: those before a hint or
/// an indented line.
pub fn lines(text: &str) -> String {
    let mut lines = text.split('\n');
    let mut shown = visible(lines.next().unwrap_or_default());
    for line in lines {
        let own = line.starts_with("  ") || line.starts_with("hint:");
        shown.push_str(if own { "\n" } else { "\\n" });
        shown.push_str(&visible(line));
    }
    shown
}

/// Standard error.
pub struct Term {
    colored: bool,
    quiet: bool,
    verbose: u8,
}

impl Term {
    /// What to say and how.
    pub fn new(color: Color, quiet: bool, verbose: u8) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !no_color && stderr().is_terminal(),
        };
        Self { colored, quiet, verbose }
    }

    /// Sends the library's log to standard error.
    pub fn init_log(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) | (_, 0) => LevelFilter::WARN,
            (_, 1) => LevelFilter::INFO,
            (_, 2) => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(stderr)
            .with_ansi(self.colored)
            .without_time()
            .with_target(false)
            .init();
    }

    /// Whether a progress bar can be drawn.
    pub fn is_interactive(&self) -> bool {
        !self.quiet && stderr().is_terminal()
    }

    /// Says something, unless only warnings and errors are wanted.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.put(&lines(text));
        }
    }

    /// Says something that needs attention.
    pub fn warn(&self, text: &str) {
        self.put(&format!("{} {}", self.paint("33;1", "warning:"), lines(text)));
    }

    /// An error with its causes; lines that begin with `hint:` stand out.
    pub fn error(&self, e: &anyhow::Error) {
        let mut text = String::new();
        for cause in e.chain().map(|c| c.to_string()) {
            // Errors that pass their cause's message on would say it twice.
            if !text.contains(&cause) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&cause);
            }
        }
        let text = lines(text.trim_end());
        let mut lines = text.lines();
        self.put(&format!("{} {}", self.paint("31;1", "error:"), lines.next().unwrap_or_default()));
        for line in lines {
            match line.trim_start().strip_prefix("hint:") {
                Some(hint) => self.put(&format!("{}{hint}", self.paint("36;1", "hint:"))),
                None => self.put(line),
            }
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }

    /// Standard error may be closed; then nobody wants to know.
    fn put(&self, text: &str) {
        let _ = writeln!(stderr(), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_neither_leave_their_line_nor_turn_the_text_around_them() {
        assert_eq!(visible("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(visible("gnp.\u{202e}cat\u{2066}"), "gnp.\\u{202e}cat\\u{2066}");
        assert_eq!(visible("\u{5d7}\u{5ea}\u{5d5}\u{5dc}"), "\u{5d7}\u{5ea}\u{5d5}\u{5dc}");
    }
}
