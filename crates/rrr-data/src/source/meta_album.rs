//! Meta-Album folders: `labels.csv`, `info.json`, `images/`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::table::{self, Table};
use super::{ClassMap, OpenOptions, Source, SourceKind, display_name};
use crate::error::{DataError, Result};

/// The fields of `info.json` that matter here.
#[derive(Default, Deserialize)]
struct Info {
    dataset_name: Option<String>,
    image_column_name: Option<String>,
    category_column_name: Option<String>,
}

pub(super) fn open(root: &Path, options: &OpenOptions) -> Result<Source> {
    let mut notes = Vec::new();
    let info_path = root.join("info.json");
    let info = if info_path.is_file() {
        let text = fs::read_to_string(&info_path).map_err(|e| DataError::io(&info_path, e))?;
        serde_json::from_str(&text)
            .map_err(|e| DataError::InvalidInfo { path: info_path, reason: e.to_string() })?
    } else {
        notes.push(format!("'{}' has no info.json; columns FILE_NAME and CATEGORY are used", root.display()));
        Info::default()
    };
    let image_column = options.image_column.clone().or(info.image_column_name);
    let label_column = options.label_column.clone().or(info.category_column_name);

    let path = root.join("labels.csv");
    let mut table = Table::read(&path, b',')?;
    let header = table.header();
    let image = table::column(&path, &header, image_column.as_deref().unwrap_or("FILE_NAME"))?;
    let label = table::column(&path, &header, label_column.as_deref().unwrap_or("CATEGORY"))?;
    let pairs = table.pairs(&path, image, label)?;
    let names = options.classes.clone().unwrap_or_else(|| {
        let mut seen = HashSet::new();
        pairs.iter().filter(|p| seen.insert(p.2)).map(|p| p.2.to_owned()).collect()
    });
    let map = ClassMap::new(&path, names.clone());
    let samples = table::samples(&path, &root.join("images"), &pairs, &map, options.skip_bad)?;
    Ok(Source {
        kind: SourceKind::MetaAlbum,
        name: info.dataset_name.unwrap_or_else(|| display_name(root)),
        root: root.to_owned(),
        classes: names,
        train: samples,
        valid: None,
        test: None,
        ignored: 0,
        notes,
    })
}
