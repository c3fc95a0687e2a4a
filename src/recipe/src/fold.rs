//! What a model does not see: one fold of the split, or nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::section::Section;
use crate::tree::Value;

/// The part of the split that a model is not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// Nothing: it is trained on every study. It predicts new studies, and none out of fold.
    All,
    /// This fold, which it predicts.
    #[serde(untagged)]
    HeldOut(u64),
}

impl Fold {
    /// The fold that is held out, where one is.
    pub fn held_out(self) -> Option<u64> {
        match self {
            Fold::HeldOut(fold) => Some(fold),
            Fold::All => None,
        }
    }

    /// Whether a study of the split's fold `of` is held out.
    pub fn holds_out(self, of: u32) -> bool {
        self == Fold::HeldOut(u64::from(of))
    }
}

/// As job names, recipes and `--folds` have it: `0`, `all`.
impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fold::HeldOut(fold) => write!(f, "{fold}"),
            Fold::All => f.write_str("all"),
        }
    }
}

impl FromStr for Fold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Fold::All),
            number => number.parse().map(Fold::HeldOut).map_err(|_| {
                "write the number of a fold, or all for models that are trained on every study"
                    .to_owned()
            }),
        }
    }
}

/// The root's `folds`: those that stage 2 and 3 train, of so many; each held out once where absent.
pub(crate) fn folds(root: &Section, count: u64) -> Vec<Fold> {
    let every: Vec<Fold> = (0..count).map(Fold::HeldOut).collect();
    let Some(items) = root.list("folds", "folds", "[0, 1, all]") else {
        return every;
    };
    let mut chosen = Vec::with_capacity(items.len());
    for item in items {
        let fold = match &item.value {
            Value::Integer(number) => u64::try_from(*number).ok().map(Fold::HeldOut),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        match fold {
            Some(fold) if !chosen.contains(&fold) => chosen.push(fold),
            _ => {
                root.wrong_type(
                    item,
                    "folds",
                    "different folds, each a number or `all`",
                    "[0, 1, all]",
                );
                return every;
            }
        }
    }
    if let Some(fold) = chosen
        .iter()
        .filter_map(|fold| fold.held_out())
        .find(|fold| *fold >= count)
    {
        root.refuse(
            "folds",
            format!("there is no fold {fold}: data.folds is {count}"),
            format!(
                "write folds from 0 to {}, and all for models that are trained on every study",
                count - 1
            ),
        );
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recipe, RecipeError, Source, parse, to_yaml};

    fn read(folds: &str) -> Result<Recipe, RecipeError> {
        let source = Source {
            name: "r.yaml".into(),
            text: format!("data: {{root: d, folds: 3}}\nstage2: {{}}\nfolds: {folds}\n"),
        };
        parse(&source, &[])
    }

    #[test]
    fn folds_are_numbers_and_the_word_all() {
        let recipe = read("[2, all, 0]").unwrap();
        assert_eq!(
            recipe.folds,
            [Fold::HeldOut(2), Fold::All, Fold::HeldOut(0)]
        );
        let source = Source {
            name: "resolved".into(),
            text: to_yaml(&recipe).unwrap(),
        };
        assert_eq!(parse(&source, &[]).unwrap(), recipe);
        assert_eq!(read("[all]").unwrap().folds, [Fold::All]);
        for wrong in ["[]", "all", "[0, 0]", "[all, all]", "[-1]", "[most]", "[3]"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains(": folds: "), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_fold_reads_back_from_what_is_written_of_it() {
        for (fold, text, json) in [(Fold::HeldOut(3), "3", "3"), (Fold::All, "all", "\"all\"")] {
            assert_eq!(fold.to_string(), text);
            assert_eq!(text.parse(), Ok(fold));
            assert_eq!(serde_json::to_string(&fold).unwrap(), json);
            assert_eq!(serde_json::from_str::<Fold>(json).unwrap(), fold);
        }
        assert!("-1".parse::<Fold>().is_err() && "most".parse::<Fold>().is_err());
    }

    #[test]
    fn all_holds_nothing_out() {
        assert!(Fold::HeldOut(1).holds_out(1) && !Fold::HeldOut(1).holds_out(0));
        assert!(!Fold::All.holds_out(0));
        assert_eq!(
            (Fold::All.held_out(), Fold::HeldOut(4).held_out()),
            (None, Some(4))
        );
    }
}
