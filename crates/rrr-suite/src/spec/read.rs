//! Reading a suite's file; errors name line and key.

use super::{Datasets, ForwardBlocks, Kind, Lines, Measure, MethodSpec, SplitRule, Suite};
use crate::error::{Result, SuiteError};
use rrrnet::config::Settings;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error, ValueDeserializer};

/// The file without its methods, whose keys are settings next to keys of our own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    #[serde(default)]
    about: String,
    kind: Option<Spanned<Kind>>,
    seeds: Spanned<Vec<u64>>,
    #[serde(default)]
    measure: Measure,
    datasets: Spanned<Datasets>,
    #[serde(default, rename = "split")]
    splits: Vec<Spanned<SplitRule>>,
    #[serde(rename = "forward-blocks")]
    forward: Option<Spanned<ForwardBlocks>>,
}

/// Keys that the suite itself decides.
const OWN: [(&str, &str); 4] = [
    ("data", "name datasets under [datasets]"),
    ("seed", "list `seeds`"),
    ("init", "only forward-blocks starts from other weights, by itself"),
    ("threads", "give --threads to `rrr suite run`"),
];

type Table<'i> = DeTable<'i>;
type Value<'i> = Spanned<DeValue<'i>>;

/// Reads and checks the file; nothing but the file is looked at.
///
/// # Errors
/// [`SuiteError::Spec`] with the line and the key.
pub fn read(path: &Path) -> Result<Suite> {
    let text = std::fs::read_to_string(path).map_err(|e| SuiteError::file("read", path, e))?;
    Reader { path, text: &text }.suite()
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn suite(&self) -> Result<Suite> {
        let document = DeTable::parse(self.text).map_err(|e| self.toml(&e))?;
        let whole = document.span();
        let mut table = document.into_inner();
        let methods = table.remove("method");
        let common = table.remove("common");
        let rest = Spanned::new(whole.clone(), table);
        let file = File::deserialize(Deserializer::from(rest)).map_err(|e| self.toml(&e))?;

        let at = |span: Range<usize>, message: &str| self.error(self.line(&span), message);
        if file.name.get_ref().is_empty() {
            return Err(at(file.name.span(), "name is empty: the database knows the suite by it"));
        }
        let seeds = file.seeds.get_ref().clone();
        if seeds.is_empty() || seeds.iter().collect::<BTreeSet<_>>().len() < seeds.len() {
            return Err(at(file.seeds.span(), "seeds must be a list of at least one number, none twice"));
        }
        if let Some(seed) = seeds.iter().find(|s| i64::try_from(**s).is_err()) {
            return Err(at(file.seeds.span(), &format!("seeds: {seed} is not below 2^63")));
        }
        let datasets = file.datasets.get_ref();
        if datasets.names.is_empty() && datasets.paths.is_empty() {
            return Err(at(file.datasets.span(), "datasets: give `names`, `paths` or both"));
        }
        let kind = file.kind.as_ref().map(|k| *k.get_ref()).unwrap_or_default();
        let kind_at = file.kind.as_ref().map_or(0..0, Spanned::span);
        match (kind, &file.forward) {
            (Kind::ForwardBlocks, None) => {
                return Err(at(kind_at, "kind forward-blocks needs a table [forward-blocks]"));
            }
            (Kind::Matrix, Some(f)) => {
                return Err(at(f.span(), "forward-blocks has no meaning for kind matrix"));
            }
            (_, Some(f)) if f.get_ref().from.iter().zip(f.get_ref().to).any(|(a, b)| *a < 1 || *a > b) => {
                return Err(at(f.span(), "forward-blocks: every number of `from` must lie in 1..`to`"));
            }
            _ => {}
        }
        let (common, common_lines) = match common {
            Some(value) => self.settings("common", self.table("common", value)?)?,
            None => Default::default(),
        };
        let methods = self.methods(methods, whole)?;
        if kind == Kind::ForwardBlocks && methods.len() != 1 {
            let line = methods[1].line;
            return Err(self.error(line, "kind forward-blocks takes one method, without `vary`"));
        }
        Ok(Suite {
            path: self.path.to_path_buf(),
            text: self.text.to_owned(),
            about: file.about,
            kind,
            seeds,
            measure: file.measure,
            lines: Lines { datasets: self.line(&file.datasets.span()), common: common_lines },
            datasets: file.datasets.into_inner(),
            name: file.name.into_inner(),
            common,
            splits: self.splits(file.splits)?,
            methods,
            forward: file.forward.map(Spanned::into_inner),
        })
    }

    fn splits(&self, given: Vec<Spanned<SplitRule>>) -> Result<Vec<SplitRule>> {
        let mut names = BTreeSet::new();
        for rule in &given {
            let name = &rule.get_ref().name;
            if given.len() > 1 && (name.is_empty() || !names.insert(name.clone())) {
                let line = self.line(&rule.span());
                return Err(self.error(line, "split: each of several needs a name of its own"));
            }
        }
        let rules: Vec<SplitRule> = given.into_iter().map(Spanned::into_inner).collect();
        Ok(if rules.is_empty() { vec![SplitRule::default()] } else { rules })
    }

    fn methods(&self, value: Option<Value<'_>>, whole: Range<usize>) -> Result<Vec<MethodSpec>> {
        let missing = || self.error(self.line(&(whole.start..whole.start)), "no [[method]] to compare");
        let value = value.ok_or_else(missing)?;
        let line = self.line(&value.span());
        let DeValue::Array(items) = value.into_inner() else {
            return Err(self.error(line, "method must be a list of tables: write [[method]]"));
        };
        let mut methods = Vec::new();
        for item in items {
            let line = self.line(&item.span());
            let table = self.table("method", item)?;
            methods.extend(self.method(line, table)?);
        }
        let mut names = BTreeSet::new();
        if let Some(m) = methods.iter().find(|m| !names.insert(&m.name)) {
            return Err(self.error(m.line, &format!("name: there are two methods `{}`", m.name)));
        }
        if methods.is_empty() { Err(missing()) } else { Ok(methods) }
    }

    /// A method, or one for each combination of the values it varies.
    fn method(&self, line: usize, mut table: Table<'_>) -> Result<Vec<MethodSpec>> {
        let name = self.string(&mut table, "name")?;
        let name = name.ok_or_else(|| self.error(line, "method: `name` is missing"))?;
        let about = self.string(&mut table, "about")?.unwrap_or_default();
        let mut variants: Vec<(Table<'_>, Vec<(String, String)>)> = vec![(table.clone(), Vec::new())];
        if let Some(vary) = table.remove("vary") {
            variants[0].0.remove("vary");
            for (key, values) in self.table("vary", vary)? {
                let line = self.line(&values.span());
                let DeValue::Array(values) = values.into_inner() else {
                    return Err(self.error(line, &format!("vary.{}: give a list of values", key.get_ref())));
                };
                let grown = variants.iter().flat_map(|(table, varied)| {
                    values.iter().map(|value| {
                        let (mut table, mut varied) = (table.clone(), varied.clone());
                        table.insert(key.clone(), value.clone());
                        varied.push((key.get_ref().to_string(), plain(value.get_ref())));
                        (table, varied)
                    })
                });
                variants = grown.collect();
            }
        }
        let finish = |(table, varied): (Table<'_>, Vec<(String, String)>)| {
            let (settings, keys) = self.settings("method", table)?;
            let suffix: String = varied.iter().map(|(k, v)| format!(" {k}={v}")).collect();
            let name = format!("{name}{suffix}");
            let about = about.clone();
            Ok(MethodSpec { name, about, settings, varied: varied.into_iter().collect(), line, keys })
        };
        variants.into_iter().map(finish).collect()
    }

    /// A table of settings, and the lines of its keys.
    fn settings(&self, what: &str, table: Table<'_>) -> Result<(Settings, BTreeMap<String, usize>)> {
        for (key, hint) in OWN {
            if let Some((found, _)) = table.get_key_value(key) {
                let line = self.line(&found.span());
                return Err(self.error(line, &format!("{what}: `{key}` cannot be set here; {hint}")));
            }
        }
        let lines = table.keys().map(|k| (k.get_ref().to_string(), self.line(&k.span()))).collect();
        let value = Spanned::new(0..0, DeValue::Table(table));
        let settings = Settings::deserialize(ValueDeserializer::from(value)).map_err(|e| self.toml(&e))?;
        Ok((settings, lines))
    }

    fn string(&self, table: &mut Table<'_>, key: &str) -> Result<Option<String>> {
        let Some(value) = table.remove(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) if !text.is_empty() => Ok(Some(text.to_owned())),
            _ => Err(self.error(self.line(&value.span()), &format!("{key} must be a text"))),
        }
    }

    fn table<'i>(&self, what: &str, value: Value<'i>) -> Result<Table<'i>> {
        let line = self.line(&value.span());
        match value.into_inner() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.error(line, &format!("{what} must be a table"))),
        }
    }

    fn toml(&self, e: &Error) -> SuiteError {
        self.error(e.span().map_or(1, |span| self.line(&span)), e.message())
    }

    fn error(&self, line: usize, message: &str) -> SuiteError {
        SuiteError::Spec { path: self.path.to_path_buf(), line, message: message.to_owned() }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        1 + before.iter().filter(|b| **b == b'\n').count()
    }
}

/// A value as people would write it in a name.
fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => s.to_string(),
        DeValue::Integer(i) => i.to_string(),
        DeValue::Float(x) => x.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Array(items) => items.iter().map(|v| plain(v.get_ref())).collect::<Vec<_>>().join(","),
        DeValue::Datetime(t) => t.to_string(),
        DeValue::Table(_) => "..".into(),
    }
}
