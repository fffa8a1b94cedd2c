//! Text out of a file, on its way to a terminal or a log.

use std::fmt::{self, Write as _};

/// Shows a text from a file so that it cannot steer a terminal: control characters and those that turn the direction of
/// writing appear as escapes, and what is longer than [`Printable::CHARS_MAX`] is cut.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a, T: AsRef<str> + ?Sized>(pub &'a T);

impl<T: AsRef<str> + ?Sized> Printable<'_, T> {
    /// Characters that are shown.
    pub const CHARS_MAX: usize = 200;
}

impl<T: AsRef<str> + ?Sized> fmt::Display for Printable<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_ref();
        for (index, character) in text.chars().enumerate() {
            if index == Self::CHARS_MAX {
                return formatter.write_char('…');
            }
            if is_harmless(character) {
                formatter.write_char(character)?;
            } else {
                write!(formatter, "{}", character.escape_unicode())?;
            }
        }
        Ok(())
    }
}

/// Whether a terminal shows the character instead of obeying it.
fn is_harmless(character: char) -> bool {
    // Bidirectional controls and other invisible format characters (Unicode general category Cf, those in use), line and
    // paragraph separators, and the byte order mark.
    let invisible = matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !character.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_a_terminal() {
        let shown = |text: &str| Printable(text).to_string();
        assert_eq!(shown("layer1.0/conv_1 é 层"), "layer1.0/conv_1 é 层");
        assert_eq!(shown("a\u{1b}[2Jb\r\n\u{9b}m\u{7f}"), "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9b}m\\u{7f}");
        assert_eq!(shown("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(shown(&"x".repeat(300)).chars().count(), 201);
    }
}
