//! A YAML document as a tree that remembers where each key and value stands, and what is laid over it.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::RecipeError;

/// Line and column (from 1) in a document; `set` names the `--set` argument a value came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub line: u64,
    pub column: u64,
    /// Which of the recipe's documents: 0 is the recipe itself, 1 what it extends, and so on.
    pub document: usize,
    pub set: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub place: Place,
    pub name: String,
}

impl Value {
    /// What this is, for "expected X, found Y".
    pub fn describe(&self) -> String {
        match self {
            Value::Null => "nothing".into(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Integer(i) => format!("`{i}`"),
            Value::Float(x) => format!("`{x}`"),
            Value::Text(s) => format!("the text `{s:.60}`"),
            Value::List(items) if items.is_empty() => "an empty list".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a section".into(),
        }
    }
}

/// Parses a document; `place` names it in errors, `document` is its number among the recipe's.
pub(crate) fn parse_document(
    text: &str,
    place: &str,
    document: usize,
) -> Result<Node, RecipeError> {
    let raw: Spanned<Raw> = serde_saphyr::from_str(text).map_err(|e| RecipeError::Syntax {
        place: place.to_owned(),
        message: e.to_string(),
    })?;
    Ok(raw.value.into_node(at(&raw.referenced, document)))
}

/// Overlays `a.b.c=value` on the tree; sections on the way are made.
pub(crate) fn overlay(root: &mut Node, argument: &str) -> Result<(), RecipeError> {
    let wrong = |message: &str| RecipeError::Syntax {
        place: format!("--set {argument}"),
        message: format!("      {message}; write it as --set stage2.epochs=3"),
    };
    let (path, text) = argument
        .split_once('=')
        .ok_or_else(|| wrong("there is no `=`"))?;
    let keys: Vec<&str> = path.split('.').collect();
    if keys.iter().any(|key| key.trim().is_empty()) {
        return Err(wrong("a part of the key is empty"));
    }
    let mut value = if text.trim().is_empty() {
        Node::null()
    } else {
        parse_document(text, &format!("--set {argument}"), 0)?
    };
    let place = Place {
        line: 0,
        column: 1,
        document: 0,
        set: Some(argument.to_owned()),
    };
    value.relocate(&place);
    root.put(&keys, value);
    Ok(())
}

impl Node {
    pub fn null() -> Self {
        Node {
            place: Place::default(),
            value: Value::Null,
        }
    }

    /// This node with another laid over it: sections are merged key by key, anything else is replaced, also by nothing.
    pub fn overlaid(self, over: Node) -> Node {
        let value = match (self.value, over.value) {
            (Value::Map(mut entries), Value::Map(over)) => {
                for (key, node) in over {
                    match entries.iter_mut().find(|(below, _)| below.name == key.name) {
                        Some(entry) => {
                            let below = std::mem::replace(&mut entry.1, Node::null());
                            *entry = (key, below.overlaid(node));
                        }
                        None => entries.push((key, node)),
                    }
                }
                Value::Map(entries)
            }
            (_, value) => value,
        };
        Node {
            place: over.place,
            value,
        }
    }

    /// Takes a key out of a section; none where there is none, or nothing under it.
    pub fn take(&mut self, key: &str) -> Option<Node> {
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        let place = entries.iter().position(|(own, _)| own.name == key)?;
        let (_, node) = entries.remove(place);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    fn relocate(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.relocate(place)),
            Value::Map(entries) => {
                for (key, node) in entries {
                    key.place = place.clone();
                    node.relocate(place);
                }
            }
            _ => {}
        }
    }

    /// Puts the value at the end of the key path, where an item of a list goes by its number; whatever is in the way gives
    /// way to sections.
    fn put(&mut self, keys: &[&str], value: Node) {
        let Some((first, rest)) = keys.split_first() else {
            *self = value;
            return;
        };
        if let Value::List(items) = &mut self.value
            && let Some(item) = first
                .parse()
                .ok()
                .and_then(|place: usize| items.get_mut(place))
        {
            item.put(rest, value);
            return;
        }
        let mut entries = match std::mem::replace(&mut self.value, Value::Null) {
            Value::Map(entries) => entries,
            _ => Vec::new(),
        };
        match entries.iter_mut().find(|(key, _)| key.name == *first) {
            Some((_, node)) => node.put(rest, value),
            None => {
                let place = value.place.clone();
                let mut node = Node {
                    place: place.clone(),
                    value: Value::Null,
                };
                node.put(rest, value);
                let name = (*first).to_owned();
                entries.push((Key { place, name }, node));
            }
        }
        self.value = Value::Map(entries);
    }
}

/// What serde hands over before places are attached.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl Raw {
    fn into_node(self, place: Place) -> Node {
        let document = place.document;
        let node = |raw: Spanned<Raw>| raw.value.into_node(at(&raw.referenced, document));
        let value = match self {
            Raw::Scalar(value) => value,
            Raw::List(items) => Value::List(items.into_iter().map(node).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, raw)| {
                        let place = at(&key.referenced, document);
                        let name = key.value;
                        (Key { place, name }, node(raw))
                    })
                    .collect(),
            ),
        };
        Node { place, value }
    }
}

fn at(location: &serde_saphyr::Location, document: usize) -> Place {
    Place {
        line: location.line(),
        column: location.column(),
        document,
        set: None,
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(v)))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Integer(v)))
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(
            i64::try_from(v).map_or(Value::Float(v as f64), Value::Integer),
        ))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float(v)))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(v.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries: Vec<(Spanned<String>, Spanned<Raw>)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Raw>>()? {
            entries.push((key, value));
        }
        Ok(Raw::Map(entries))
    }
}
