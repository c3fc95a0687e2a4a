//! A YAML document as a tree that remembers where each key and value stands.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::RecipeError;

/// Line and column (from 1) in the file; `set` names the `--set` argument a value came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub line: u64,
    pub column: u64,
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
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a section".into(),
        }
    }
}

/// Parses a document; `place` names it in errors.
pub(crate) fn parse_document(text: &str, place: &str) -> Result<Node, RecipeError> {
    let raw: Spanned<Raw> = serde_saphyr::from_str(text).map_err(|e| RecipeError::Syntax {
        place: place.to_owned(),
        message: e.to_string(),
    })?;
    Ok(raw.into())
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
        Node {
            place: Place::default(),
            value: Value::Null,
        }
    } else {
        parse_document(text, &format!("--set {argument}"))?
    };
    let place = Place {
        line: 0,
        column: 1,
        set: Some(argument.to_owned()),
    };
    value.relocate(&place);
    root.put(&keys, value);
    Ok(())
}

impl Node {
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

    /// Puts the value at the end of the key path; whatever is in the way gives way to sections.
    fn put(&mut self, keys: &[&str], value: Node) {
        let Some((first, rest)) = keys.split_first() else {
            *self = value;
            return;
        };
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

impl From<Spanned<Raw>> for Node {
    fn from(raw: Spanned<Raw>) -> Self {
        let value = match raw.value {
            Raw::Scalar(value) => value,
            Raw::List(items) => Value::List(items.into_iter().map(Node::from).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, node)| {
                        let place = at(&key.referenced);
                        (
                            Key {
                                place,
                                name: key.value,
                            },
                            Node::from(node),
                        )
                    })
                    .collect(),
            ),
        };
        Node {
            place: at(&raw.referenced),
            value,
        }
    }
}

fn at(location: &serde_saphyr::Location) -> Place {
    Place {
        line: location.line(),
        column: location.column(),
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
