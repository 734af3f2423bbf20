//! From bytes to plain values.
//!
//! Owns what is refused before anything is interpreted: size, encoding, duplicate keys, tags, several documents, and
//! aliases that would blow up. Never expands `${VARIABLES}`: a configuration means the same everywhere.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The largest file, in bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The most values a file may expand to, aliases followed. A large configuration has a few thousand.
const MAX_VALUES: u32 = 100_000;

/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// Why a text is not plain YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlFault {
    /// Line and column, counted from 1, where known.
    pub(super) at: Option<(usize, usize)>,
    /// What is wrong.
    pub(super) problem: String,
}

/// Reads one YAML document into plain values.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, YamlFault> {
    let fault = |problem: String| YamlFault { at: None, problem };
    if bytes.len() > MAX_BYTES {
        return Err(fault(format!(
            "the file is larger than {} KiB",
            MAX_BYTES / 1024
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        fault(format!("line {line} is not UTF-8 text"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let left = Cell::new(MAX_VALUES);
    Node { left: &left }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| YamlFault {
            at: error
                .location()
                .map(|location| (location.line(), location.column())),
            problem: words(&error),
        })
}

/// The parser's words without the place, which is told apart.
fn words(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let end = text.find(" at line ").unwrap_or(text.len());
    super::schema::plain(&text[..end])
}

/// Builds a value and counts what it builds.
#[derive(Clone, Copy)]
struct Node<'a> {
    left: &'a Cell<u32>,
}

impl Node<'_> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| {
            E::custom("the file expands to more values than any configuration has")
        })?;
        self.left.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.count()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // Infinity and not-a-number have no place in a configuration; as null they are complained about by path.
        Ok(serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some(key) = map.next_key_seed(Key)? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "the key {} stands there twice",
                    super::schema::show_key(&key, false)
                )));
            }
            if key == "<<" {
                return Err(A::Error::custom("merge keys (<<) are not supported"));
            }
            let value = map.next_value_seed(self)?;
            entries.insert(key, value);
        }
        Ok(Value::Object(entries))
    }
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("tags (!) are not supported"))
    }
}

/// A key, which must be text.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is plain text")
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        if key.len() > MAX_KEY_BYTES {
            return Err(E::custom(format!(
                "a key is longer than {MAX_KEY_BYTES} bytes"
            )));
        }
        Ok(key.to_owned())
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<String, E> {
        Err(E::custom("a key is true or false instead of text"))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<String, E> {
        Err(E::custom("a key is a number instead of text"))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<String, E> {
        Err(E::custom("a key is a number instead of text"))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<String, E> {
        Err(E::custom("a key is a number instead of text"))
    }
    fn visit_unit<E: Error>(self) -> Result<String, E> {
        Err(E::custom("a key is missing before ':'"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("a key is a list instead of text"))
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("a key is a mapping instead of text"))
    }
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("tags (!) are not supported"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(text: impl AsRef<[u8]>) -> String {
        parse(text.as_ref())
            .expect_err("hostile text is refused")
            .problem
    }

    #[test]
    fn plain_yaml_becomes_plain_values_and_anchors_are_followed() {
        let value = parse(b"a: &x {n: 1, s: 'no', f: 1.5, e: , t: true}\nb: [*x, *x]\n");
        let one = json!({"n": 1, "s": "no", "f": 1.5, "e": null, "t": true});
        assert_eq!(value, Ok(json!({"a": one, "b": [one, one]})));
        assert_eq!(parse(b""), Ok(Value::Null));
    }

    #[test]
    fn an_alias_bomb_of_300_bytes_is_defused() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g"]
            .iter()
            .zip(["a", "b", "c", "d", "e", "f"])
        {
            bomb += &format!(
                "{name}: &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n"
            );
        }
        assert!(bomb.len() < 400, "{}", bomb.len());
        let problem = problem(&bomb);
        assert!(
            problem.contains("repetition limit") || problem.contains("more values"),
            "{problem}"
        );
    }

    #[test]
    fn an_alias_bomb_padded_to_pass_the_parser_is_defused_too() {
        let mut bomb = String::new();
        for n in 0..30_000 {
            bomb += &format!("k{n}: 1\n");
        }
        bomb += "a: &a [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]\n";
        let many = vec!["*a"; 60].join(",");
        bomb += &format!("b: &b [{many}]\n");
        let many = vec!["*b"; 60].join(",");
        bomb += &format!("c: &c [{many}]\n");
        assert!(problem(&bomb).contains("more values"));
    }

    #[test]
    fn hostile_text_is_refused_with_its_place() {
        assert!(problem("[".repeat(5_000)).len() < 200);
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(problem(deep).contains("recursion"));
        assert!(problem(vec![b'a'; 2 * 1024 * 1024]).contains("larger than 1024 KiB"));
        assert!(problem(b"a: b\0c\n").contains("control characters"));
        assert!(problem(b"a: 1\nb: \xff\n").contains("line 2"));
        assert!(problem("a: 1\n---\nb: 2\n").contains("more than one document"));
        assert!(problem("a: !include x\n").contains("tags"));
        assert!(problem("1: x\n").contains("number"));
        assert!(problem("a: {<<: {b: 1}}\n").contains("merge"));
        let twice = parse(b"a: 1\nb: 2\na: 3\n").expect_err("a duplicate key");
        assert!(
            twice.problem.contains("`a` stands there twice"),
            "{twice:?}"
        );
        let broken = parse(b"a: 1\nb: [1, 2\n").expect_err("a list that does not end");
        assert!(broken.at.is_some_and(|(line, _)| line >= 2), "{broken:?}");
    }

    #[test]
    fn variables_are_not_expanded() {
        assert_eq!(parse(b"a: ${HOME}"), Ok(json!({"a": "${HOME}"})));
    }
}
