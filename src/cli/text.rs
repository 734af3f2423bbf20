//! Text of others on its way to a terminal.
//!
//! Owns the escaping of everything that a server, a person or Elastic Cloud wrote. Never lets a control character
//! through: escape sequences could move the cursor, rename the window or hide a line.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character can change what a terminal shows elsewhere: control characters (C0, DEL, C1), invisible
/// formatting, reversed direction, separators of lines and paragraphs.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with every unsafe character written as `\u{..}` (`\n`, `\t` and `\r` by their short names).
#[must_use]
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// What a parser says about a file, without the texts that it quotes: one of them might be a secret in the wrong file.
#[must_use]
pub fn without_values(words: &str) -> String {
    const QUOTED: &str = "string \"";
    let mut plain = String::with_capacity(words.len());
    let mut rest = words;
    while let Some((before, quoted)) = rest.split_once(QUOTED) {
        plain.push_str(before);
        plain.push_str("text");
        // As `Debug` writes it: a quote inside has a backslash before it.
        let mut is_escaped = false;
        let end = quoted.find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        rest = end.map_or("", |end| &quoted[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

/// The same for a document that was already serialised as JSON, where unsafe characters can only stand in strings:
/// they become `\uXXXX`. Line feeds stay, they are layout.
#[must_use]
pub fn safe_json(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len());
    for character in document.chars() {
        if character != '\n' && is_unsafe(character) {
            let mut units = [0_u16; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(escaped, "\\u{unit:04x}").expect("writing to a string cannot fail");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// `one grant`, `3 grants`: a count with its noun.
#[must_use]
pub fn count(number: impl TryInto<usize>, singular: &str, plural: &str) -> String {
    match number.try_into().unwrap_or(usize::MAX) {
        1 => format!("1 {singular}"),
        many => format!("{many} {plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parser_quotes_of_a_file_is_not_repeated() {
        for (said, shown) in [
            (
                "invalid type: string \"HUSH\", expected struct Cases",
                "invalid type: text, expected struct Cases",
            ),
            (
                "a: invalid value: string \"HU \\\" SH\\\\\", expected b at line 1",
                "a: invalid value: text, expected b at line 1",
            ),
            ("string \"HUSH", "text"),
            ("missing field `name`", "missing field `name`"),
        ] {
            assert_eq!(without_values(said), shown);
        }
    }

    #[test]
    fn escape_sequences_never_reach_the_terminal() {
        for (raw, shown) in [
            ("plain, ünïcode, 日本", "plain, ünïcode, 日本"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("two\nlines\ttab\r", "two\\nlines\\ttab\\r"),
            ("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
            ("\0", "\\u{0}"),
        ] {
            assert_eq!(safe(raw), shown);
        }
    }

    #[test]
    fn json_stays_json_and_keeps_its_meaning() {
        let value = serde_json::json!({ "a": "\u{1b}\u{9b}\u{202e}\u{e0041}\n", "b": [1, "ü"] });
        let document = safe_json(&serde_json::to_string_pretty(&value).expect("serialises"));
        assert!(
            !document.chars().any(|c| c != '\n' && is_unsafe(c)),
            "{document}"
        );
        let back: serde_json::Value = serde_json::from_str(&document).expect("still JSON");
        assert_eq!(back, value);
    }

    #[test]
    fn counts_agree_with_their_nouns() {
        assert_eq!(count(1, "grant", "grants"), "1 grant");
        assert_eq!(count(0, "grant", "grants"), "0 grants");
    }
}
