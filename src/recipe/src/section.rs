//! Reads a section of the tree key by key: asks for typed values, collects faults instead of
//! stopping at the first, and at the end names the keys that nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::reader::Reader;
use crate::tree::{Node, Place, Value};

/// One section (a YAML mapping) under a key path. An absent section reads as all defaults.
pub(crate) struct Section<'r, 'a> {
    reader: &'r Reader<'a>,
    node: Option<&'r Node>,
    path: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'r, 'a> Section<'r, 'a> {
    pub fn root(reader: &'r Reader<'a>, node: &'r Node) -> Self {
        Self::over(reader, Some(node), String::new())
    }

    fn over(reader: &'r Reader<'a>, node: Option<&'r Node>, path: String) -> Self {
        if let Some(node) = node
            && !matches!(node.value, Value::Map(_) | Value::Null)
        {
            reader.fault(
                &node.place,
                &path,
                format!(
                    "expected a section with keys, found {}",
                    node.value.describe()
                ),
                "write the keys indented below it".into(),
            );
        }
        Section {
            reader,
            node,
            path,
            asked: RefCell::default(),
        }
    }

    fn entries(&self) -> &'r [(crate::tree::Key, Node)] {
        match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }

    /// The node of a key, remembered as known; null counts as absent.
    pub fn get(&self, key: &'static str) -> Option<&'r Node> {
        self.asked.borrow_mut().push(key);
        self.entries()
            .iter()
            .find(|(k, _)| k.name == key)
            .map(|(_, node)| node)
            .filter(|node| !matches!(node.value, Value::Null))
    }

    pub fn key_path(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    pub fn wrong_type(&self, node: &Node, key: &str, expected: &str, example: &str) {
        self.reader.fault(
            &node.place,
            &self.key_path(key),
            format!("expected {expected}, found {}", node.value.describe()),
            format!("for example `{key}: {example}`"),
        );
    }

    /// A fault at a key of this section, found after the values were read.
    pub fn refuse(&self, key: &str, message: String, help: String) {
        let place = self
            .entries()
            .iter()
            .find(|(k, _)| k.name == key)
            .map(|(k, _)| &k.place)
            .or(self.node.map(|node| &node.place));
        self.reader.fault(
            place.unwrap_or(&Place::default()),
            &self.key_path(key),
            message,
            help,
        );
    }

    pub fn section(&self, key: &'static str) -> Section<'r, 'a> {
        Self::over(self.reader, self.get(key), self.key_path(key))
    }

    /// A fault at some place below this section; `key` is its path from here.
    pub fn fault(&self, place: &Place, key: &str, message: String, help: String) {
        self.reader.fault(place, &self.key_path(key), message, help);
    }

    /// An item of one of this section's lists, as a section; `path` leads to it from here.
    pub fn item<'n>(&self, node: &'n Node, path: &str) -> Section<'n, 'a>
    where
        'r: 'n,
    {
        Section::over(self.reader, Some(node), self.key_path(path))
    }

    /// Whether something stands at a key.
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// The items of a list that has some; none, and a fault, where what stands there is none.
    pub fn list(&self, key: &'static str, of: &str, example: &str) -> Option<&'r [Node]> {
        let node = self.get(key)?;
        match &node.value {
            Value::List(items) if !items.is_empty() => Some(items),
            _ => {
                self.wrong_type(node, key, &format!("a list of {of}"), example);
                None
            }
        }
    }

    /// Whether the section is written at all, even if empty.
    pub fn is_present(&self) -> bool {
        self.node.is_some()
    }

    /// Whether a key has a whole number, where it may have a word instead.
    pub fn whole(&self, key: &'static str) -> bool {
        let value = self.get(key).map(|node| &node.value);
        matches!(value, Some(Value::Integer(_)))
    }

    pub fn integer(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.get(key) else {
            return default;
        };
        let Value::Integer(value) = node.value else {
            self.wrong_type(node, key, "a whole number", &default.to_string());
            return default;
        };
        match u64::try_from(value) {
            Ok(value) if range.contains(&value) => value,
            _ => {
                self.out_of_range(node, key, value, range.start(), range.end());
                default
            }
        }
    }

    pub fn optional_integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let present = self.get(key).is_some();
        let value = self.integer(key, *range.start(), range);
        present.then_some(value)
    }

    pub fn number(&self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(node) = self.get(key) else {
            return default;
        };
        let value = match node.value {
            Value::Float(x) => x,
            Value::Integer(i) => i as f64,
            _ => {
                self.wrong_type(node, key, "a number", &default.to_string());
                return default;
            }
        };
        if !value.is_finite() || !range.contains(&value) {
            self.out_of_range(node, key, value, range.start(), range.end());
            return default;
        }
        value
    }

    pub fn optional_number(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let present = self.get(key).is_some();
        let value = self.number(key, *range.start(), range);
        present.then_some(value)
    }

    fn out_of_range<T: std::fmt::Display>(
        &self,
        node: &Node,
        key: &str,
        value: impl std::fmt::Display,
        from: &T,
        to: &T,
    ) {
        self.reader.fault(
            &node.place,
            &self.key_path(key),
            format!("{value} is out of range"),
            format!("write a value from {from} to {to}"),
        );
    }

    pub fn text(&self, key: &'static str, default: &str) -> String {
        match self.get(key).map(|node| (node, &node.value)) {
            None => default.to_owned(),
            Some((_, Value::Text(text))) => text.clone(),
            Some((node, _)) => {
                self.wrong_type(node, key, "a text", default);
                default.to_owned()
            }
        }
    }

    pub fn optional_text(&self, key: &'static str) -> Option<String> {
        let present = self.get(key).is_some();
        let text = self.text(key, "");
        present.then_some(text)
    }

    pub fn switch(&self, key: &'static str, default: bool) -> bool {
        match self.get(key).map(|node| (node, &node.value)) {
            None => default,
            Some((_, Value::Bool(value))) => *value,
            Some((node, _)) => {
                self.wrong_type(node, key, "true or false", &default.to_string());
                default
            }
        }
    }

    pub fn optional_switch(&self, key: &'static str) -> Option<bool> {
        let present = self.get(key).is_some();
        let value = self.switch(key, false);
        present.then_some(value)
    }

    /// One of a few words. YAML's readers take a bare `on` or `off` for a switch: here it is the word again.
    pub fn choice<T: Copy>(&self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        let Some(node) = self.get(key) else {
            return default;
        };
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text = match &node.value {
            Value::Text(text) => Some(text.as_str()),
            Value::Bool(true) => all.contains(&"on").then_some("on"),
            Value::Bool(false) => all.contains(&"off").then_some("off"),
            _ => None,
        };
        match text {
            Some(text) => match words.iter().find(|(word, _)| *word == text) {
                Some((_, value)) => return *value,
                None => {
                    let near = nearest(text, &all)
                        .map_or(String::new(), |word| format!("did you mean `{word}`? "));
                    self.reader.fault(
                        &node.place,
                        &self.key_path(key),
                        format!("`{text}` is not one of the known words"),
                        format!("{near}write one of: {}", all.join(", ")),
                    );
                }
            },
            None => self.wrong_type(node, key, "a word", all.first().unwrap_or(&"")),
        }
        default
    }

    /// A section whose keys are the user's, each with one of a few words. Ends its reading.
    pub fn words<T: Copy>(self, words: &[(&str, T)]) -> BTreeMap<String, T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let mut chosen = BTreeMap::new();
        for (key, node) in self.entries() {
            let word = match &node.value {
                Value::Text(text) => words.iter().find(|(word, _)| word == text),
                _ => None,
            };
            match word {
                Some((_, value)) => drop(chosen.insert(key.name.clone(), *value)),
                None => self.reader.fault(
                    &node.place,
                    &self.key_path(&key.name),
                    format!("expected a word, found {}", node.value.describe()),
                    format!("write one of: {}", known.join(", ")),
                ),
            }
        }
        chosen
    }

    /// A list of whole numbers without repetition.
    pub fn integers(&self, key: &'static str, default: &[u64]) -> Vec<u64> {
        let Some(node) = self.get(key) else {
            return default.to_vec();
        };
        let Value::List(items) = &node.value else {
            self.wrong_type(node, key, "a list of whole numbers", "[0, 1, 2]");
            return default.to_vec();
        };
        let mut numbers = Vec::with_capacity(items.len());
        for item in items {
            match item.value {
                Value::Integer(i) if i >= 0 && !numbers.contains(&(i as u64)) => {
                    numbers.push(i as u64);
                }
                _ => {
                    self.wrong_type(item, key, "different whole numbers", "[0, 1, 2]");
                    return default.to_vec();
                }
            }
        }
        if numbers.is_empty() {
            self.wrong_type(node, key, "at least one number", "[0]");
            return default.to_vec();
        }
        numbers
    }

    /// A list of numbers.
    pub fn optional_numbers(&self, key: &'static str, example: &str) -> Option<Vec<f64>> {
        let node = self.get(key)?;
        let Value::List(items) = &node.value else {
            self.wrong_type(node, key, "a list of numbers", example);
            return None;
        };
        let mut numbers = Vec::with_capacity(items.len());
        for item in items {
            match item.value {
                Value::Float(x) if x.is_finite() => numbers.push(x),
                Value::Integer(i) => numbers.push(i as f64),
                _ => self.wrong_type(item, key, "a number", example),
            }
        }
        Some(numbers)
    }

    pub fn texts(&self, key: &'static str, default: &[&str]) -> Vec<String> {
        let owned = || default.iter().map(|s| (*s).to_owned()).collect();
        let Some(node) = self.get(key) else {
            return owned();
        };
        let Value::List(items) = &node.value else {
            self.wrong_type(node, key, "a list of texts", "[\"a\", \"b\"]");
            return owned();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Text(text) => texts.push(text.clone()),
                _ => self.wrong_type(item, key, "a text", "[\"a\", \"b\"]"),
            }
        }
        texts
    }

    /// Ends the reading of this section: keys that were never asked for are faults.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.entries() {
            if asked.contains(&key.name.as_str()) {
                continue;
            }
            let help = match nearest(&key.name, &asked) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known keys here: {}", asked.join(", ")),
            };
            self.reader.fault(
                &key.place,
                &self.key_path(&key.name),
                "unknown key".into(),
                help,
            );
        }
    }
}

/// The known word that is close enough to be a misspelling of this one.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(word, candidate),
                *candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
