//! Recipes: named settings, kept as data.

use super::{ConfigError, Method, Settings};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// Name and text of every recipe.
pub const RECIPES: &[(&str, &str)] = &[
    ("fast", include_str!("../../recipes/fast.toml")),
    ("best", include_str!("../../recipes/best.toml")),
    ("paper", include_str!("../../recipes/paper.toml")),
];

/// A named set of settings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What it is for, in a line.
    pub summary: String,
    /// For every method.
    pub settings: Settings,
    /// On top of `settings`, by the name of the method.
    #[serde(default)]
    methods: BTreeMap<String, Settings>,
}

impl Recipe {
    /// The recipe called `name`.
    ///
    /// # Errors
    /// [`ConfigError::UnknownRecipe`] lists those there are.
    pub fn named(name: &str) -> Result<Self, ConfigError> {
        match RECIPES.iter().find(|(n, _)| *n == name) {
            Some((name, text)) => parse(text, Path::new(&format!("recipes/{name}.toml"))),
            None => Err(ConfigError::UnknownRecipe {
                name: name.into(),
                known: RECIPES.iter().map(|(n, _)| n.to_string()).collect(),
            }),
        }
    }

    /// The settings for `method`.
    pub fn for_method(&self, method: Method) -> Settings {
        match self.methods.get(method.as_str()) {
            Some(own) => own.clone().over(self.settings.clone()),
            None => self.settings.clone(),
        }
    }
}

pub(super) fn parse_file<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    parse(&text, path)
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |s| s.start.min(text.len()));
        let line = 1 + text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        ConfigError::Parse { path: path.to_path_buf(), line, message: e.message().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_parses_and_names_real_methods() {
        for (name, _) in RECIPES {
            let recipe = Recipe::named(name).unwrap();
            assert!(!recipe.summary.is_empty());
            assert!(recipe.methods.keys().all(|m| Method::NAMES.contains(&m.as_str())), "{name}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let e = parse::<Settings>("epochs = 3\n\nepoch = 4\n", Path::new("my.toml")).unwrap_err();
        let text = e.to_string();
        assert!(text.starts_with("my.toml, line 3: unknown field `epoch`"), "{text}");
    }

    #[test]
    fn an_unknown_recipe_lists_the_known_ones() {
        let text = Recipe::named("slow").unwrap_err().to_string();
        assert!(text.contains("`slow`") && text.contains("fast, best, paper"), "{text}");
    }
}
