//! Text from plugins, made safe to show, and values of the contract in words.

use crate::bindings::host::pcoder::plugin::types::ExitStatus;

/// How a program ended, in words.
pub fn ended(status: &ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("exit code {code}"),
        ExitStatus::Signaled(signal) => format!("signal {signal}"),
    }
}

/// Cuts `text` to `limit` bytes and makes control characters visible, so that a plugin cannot move the cursor, change
/// colours or reorder what people read on their terminal. Tabs and line ends stay.
pub fn for_people(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        if shown.len() + character.len_utf8() > limit {
            shown.push('…');
            break;
        }
        match character {
            '\n' | '\t' => shown.push(character),
            _ if character.is_control() || is_direction_mark(character) => {
                shown.extend(character.escape_unicode());
            }
            _ => shown.push(character),
        }
    }
    shown
}

/// The characters that make text read in another order than it is stored.
fn is_direction_mark(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::for_people;

    #[test]
    fn a_terminal_escape_is_shown_and_not_obeyed() {
        assert_eq!(for_people("\u{1b}[2Jhi\u{202e}", 100), "\\u{1b}[2Jhi\\u{202e}");
        assert_eq!(for_people("two\nlines", 100), "two\nlines");
    }

    #[test]
    fn long_text_is_cut_on_a_character_boundary() {
        assert_eq!(for_people("ääää", 5), "ää…");
    }
}
