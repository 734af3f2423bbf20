//! Mutations: from samples and from what came of them, a new input for every number.
//!
//! Owns what is changed, and which inputs are worth changing further: those that a target answered in a way not seen
//! before. Never looks at a clock, so that a run repeats.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher as _};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::Value;

/// Longest input that is made: beyond most limits, and still quick to take.
const LONGEST: usize = 1 << 16;
/// Most inputs that are remembered.
const POPULATION: usize = 4000;

/// Numbers at the edges of types and formats.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1e999",
    "1e-999",
    "0.1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "4294967296",
    "253402300800",
    "221845392000",
    "NaN",
    "1e5",
    "00",
    "0x10",
];

/// Texts that disturb whoever takes text for a path, a line, a name or a number.
const TEXTS: &[&str] = &[
    "",
    ".",
    "..",
    "../..",
    "/",
    "//",
    "\\",
    "%2e%2e",
    "%00",
    "a/b",
    "a?b#c",
    "all",
    "*",
    "null",
    "true",
    "\u{0}",
    "\n",
    "\r\n",
    "\u{202e}",
    "\u{feff}",
    "é",
    "𝄞",
    " ",
    "organization",
    "deployment/all",
    " on ",
    " as [",
    "]",
    ", ",
    "Infinity",
    "9999-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z",
    "-262144-01-01T00:00:00Z",
    "+262143-12-31T23:59:59Z",
    "1970-01-01T00:00:60Z",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "a@b",
    "A@EXAMPLE.COM",
    "spiffe://",
    "https://h/%2e%2e/",
    "[[[[",
    "{{{{",
    "&a [*a]",
];

/// Makes inputs.
#[derive(Debug)]
pub(crate) struct Source {
    seed: u64,
    name: &'static str,
    words: &'static [&'static str],
    inputs: Vec<Vec<u8>>,
    seen: HashSet<u64>,
}

fn digest(parts: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

impl Source {
    /// For a target, with words of its format.
    pub(crate) fn new(name: &'static str, seed: u64, words: &'static [&'static str]) -> Self {
        Self {
            seed,
            name,
            words,
            inputs: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Remembers an input whose answer was of a new kind; answers whether it was. Samples are always remembered.
    pub(crate) fn keep(&mut self, input: Vec<u8>, kind: u64, is_sample: bool) -> bool {
        let is_new = self.seen.insert(kind);
        if (is_new || is_sample) && self.inputs.len() < POPULATION {
            self.inputs.push(input);
        }
        is_new
    }

    /// The input of this number.
    pub(crate) fn next(&self, number: u64) -> Vec<u8> {
        let mut dice = Dice(ChaCha8Rng::seed_from_u64(digest((
            self.name, self.seed, number,
        ))));
        let mut input = self.one(&mut dice).to_vec();
        // A document whose structure is kept gets past the parser more often.
        if dice.below(2) == 0
            && let Ok(mut value) = serde_json::from_slice::<Value>(&input)
        {
            for _ in 0..=dice.below(3) {
                self.graft(&mut dice, &mut value);
            }
            input = value.to_string().into_bytes();
            if dice.below(4) != 0 {
                input.truncate(LONGEST);
                return input;
            }
        }
        // Most often one change: two are refused for the first.
        for _ in 0..[1, 1, 1, 2, 6][dice.below(5)] {
            self.change(&mut dice, &mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn one(&self, dice: &mut Dice) -> &[u8] {
        let at = dice.below(self.inputs.len());
        &self.inputs[at]
    }

    fn word(&self, dice: &mut Dice) -> &'static str {
        match dice.below(4) {
            0 => TEXTS[dice.below(TEXTS.len())],
            1 => NUMBERS[dice.below(NUMBERS.len())],
            _ if self.words.is_empty() => TEXTS[dice.below(TEXTS.len())],
            _ => self.words[dice.below(self.words.len())],
        }
    }

    /// Changes bytes, whatever they mean.
    fn change(&self, dice: &mut Dice, input: &mut Vec<u8>) {
        let at = dice.below(input.len() + 1);
        let length = dice.span(input.len() - at);
        match dice.below(13) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = dice.byte(),
            2 => drop(input.drain(at..at + length)),
            3 => input.truncate(at),
            4 => {
                let piece = input[at..at + length].to_vec();
                let to = dice.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            5 => {
                let piece = input[at..at + length.clamp(0, 64)].to_vec();
                let times = [2, 10, 200, 5000][dice.below(4)];
                let room = LONGEST.saturating_sub(input.len()) / piece.len().max(1);
                let piece = piece.repeat(times.min(room));
                input.splice(at..at, piece);
            }
            6 => {
                let other = self.one(dice);
                let from = dice.below(other.len() + 1);
                let piece = other[from..from + dice.span(other.len() - from)].to_vec();
                input.splice(at..at + length, piece);
            }
            7 => {
                let other = self.one(dice);
                let from = dice.below(other.len() + 1);
                let tail = other[from..].to_vec();
                input.truncate(at);
                input.extend(tail);
            }
            8 => {
                let bytes = (0..=dice.below(8)).map(|_| dice.byte()).collect::<Vec<_>>();
                input.splice(at..at, bytes);
            }
            9 => {
                // A number in the text becomes another one.
                let Some(first) = input[at..].iter().position(u8::is_ascii_digit) else {
                    return;
                };
                let first = at + first;
                let digits = input[first..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                let number = NUMBERS[dice.below(NUMBERS.len())];
                input.splice(first..first + digits, number.bytes());
            }
            10 => {
                let word = self.word(dice);
                input.splice(at..at + length.min(word.len()), word.bytes());
            }
            11 => {
                let piece = input.drain(at..at + length).collect::<Vec<_>>();
                let to = dice.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            _ => {
                let word = self.word(dice);
                input.splice(at..at, word.bytes());
            }
        }
    }

    /// Changes one place of a document.
    fn graft(&self, dice: &mut Dice, value: &mut Value) {
        let inner = match value {
            Value::Array(items) if !items.is_empty() && dice.below(5) != 0 => {
                let at = dice.below(items.len());
                items.get_mut(at)
            }
            Value::Object(map) if !map.is_empty() && dice.below(6) != 0 => {
                let at = dice.below(map.len());
                map.values_mut().nth(at)
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        };
        if let Some(inner) = inner {
            return self.graft(dice, inner);
        }
        match value {
            Value::Array(items) if dice.below(2) == 0 => match dice.below(3) {
                0 => drop(items.pop()),
                1 => items.push(self.leaf(dice)),
                _ => {
                    let again = items.first().cloned().unwrap_or(Value::Null);
                    let most = LONGEST / again.to_string().len().max(1);
                    items.extend(vec![again; [1, 20, 500][dice.below(3)].min(most)]);
                }
            },
            Value::Object(map) if dice.below(2) == 0 => {
                let at = dice.below(map.len() + 1);
                if let Some(key) = map.keys().nth(at).cloned() {
                    let moved = map.remove(&key).expect("it is there");
                    if dice.below(2) == 0 {
                        map.insert(self.word(dice).to_owned(), moved);
                    }
                } else {
                    map.insert(self.word(dice).to_owned(), self.leaf(dice));
                }
            }
            Value::String(text) if dice.below(2) == 0 => {
                let at = text
                    .char_indices()
                    .map(|(at, _)| at)
                    .nth(dice.below(text.len() + 1));
                text.insert_str(at.unwrap_or(0), self.word(dice));
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                *value = self.leaf(dice);
            }
        }
    }

    fn leaf(&self, dice: &mut Dice) -> Value {
        match dice.below(9) {
            0 => Value::Null,
            1 => Value::Bool(dice.below(2) == 0),
            2 => serde_json::from_str(NUMBERS[dice.below(NUMBERS.len())]).unwrap_or_default(),
            3 => Value::Array(Vec::new()),
            4 => Value::Object(serde_json::Map::new()),
            5 => {
                Value::String("x".repeat([1, 63, 64, 65, 128, 129, 256, 257, 1025][dice.below(9)]))
            }
            6 => (0..100).fold(Value::Null, |inner, _| Value::Array(vec![inner])),
            _ => Value::String(self.word(dice).to_owned()),
        }
    }
}

/// Numbers by chance, of one seed.
#[derive(Debug)]
struct Dice(ChaCha8Rng);

impl Dice {
    /// Below `end`; 0 where there is nothing below it.
    fn below(&mut self, end: usize) -> usize {
        let number = self.0.next_u64() % (end.max(1) as u64);
        usize::try_from(number).expect("below a usize")
    }

    /// A length up to `most`, short ones more often.
    fn span(&mut self, most: usize) -> usize {
        let cap = [1, 4, 16, 64, most][self.below(5)];
        self.below(most.min(cap) + 1)
    }

    fn byte(&mut self) -> u8 {
        const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'{'];
        if self.below(3) == 0 {
            EDGES[self.below(EDGES.len())]
        } else {
            u8::try_from(self.below(256)).expect("below 256")
        }
    }
}

/// The kind of an answer: its words without numbers, so that two inputs that end in the same place are one kind.
pub(crate) fn kind_of(answer: &str) -> u64 {
    let words: String = answer
        .chars()
        .take(400)
        .filter(|c| !c.is_ascii_digit())
        .collect();
    digest(words)
}
