//! The backbones that can be had by name.

use serde::Serialize;

/// Where a catalog entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `timm/NAME` on the Hugging Face hub.
    Hub,
    /// A file inside a wheel of the Python Package Index.
    Wheel(&'static Wheel),
}

/// A wheel with weights in it, pinned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wheel {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) wheel_sha256: &'static str,
    pub(crate) member: &'static str,
    pub(crate) member_sha256: &'static str,
    /// Prefix of the ResNet's tensors.
    pub(crate) prefix: &'static str,
}

impl Wheel {
    pub(crate) fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }
}

/// A backbone of the catalog.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CatalogEntry {
    /// timm's name, such as `resnet152.a1h_in1k`.
    pub name: &'static str,
    /// Licence of the weights.
    pub license: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    #[serde(skip)]
    pub(crate) source: Source,
}

impl CatalogEntry {
    /// The architecture: the name up to the dot.
    pub fn architecture(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(architecture, _)| architecture)
    }

    /// Where it is downloaded from, in words.
    pub fn origin(&self) -> String {
        match self.source {
            Source::Hub => format!("timm/{} on the Hugging Face hub", self.name),
            Source::Wheel(wheel) => format!("{} in the wheel {} on PyPI", wheel.member, wheel.requirement()),
        }
    }
}

const A1H: &str = "ImageNet-1k, timm, recipe A1 with stronger augmentation";
const A1: &str = "ImageNet-1k, timm, recipe A1 of \"ResNet strikes back\"";
const TV: &str = "ImageNet-1k, torchvision, the original recipe";
const TV2: &str = "ImageNet-1k, torchvision, the improved recipe";
const APACHE: &str = "apache-2.0";
const BSD: &str = "bsd-3-clause";

const fn hub(name: &'static str, license: &'static str, about: &'static str) -> CatalogEntry {
    CatalogEntry { name, license, about, source: Source::Hub }
}

static RESMEM: Wheel = Wheel {
    package: "resmem",
    version: "1.1.6",
    wheel_sha256: "2ed9d656280761215cde8f94a58197cdca523ccacb36fbd949edbea7a62c5572",
    member: "resmem/model.pt",
    member_sha256: "8e4b8ab0ac338909add68a674e9bd4c1602350731abe7f97bc060dc159706a53",
    prefix: "features.",
};

static CATALOG: [CatalogEntry; 18] = [
    hub("resnet152.a1h_in1k", APACHE, A1H),
    hub("resnet152.a1_in1k", APACHE, A1),
    hub("resnet152.tv_in1k", BSD, TV),
    hub("resnet152.tv2_in1k", BSD, TV2),
    CatalogEntry {
        name: "resnet152.resmem",
        license: "non-commercial research (ResMem Non-commercial License, The University of Chicago)",
        about: "ImageNet-1k, torchvision, inside a model of image memorability",
        source: Source::Wheel(&RESMEM),
    },
    hub("resnet101.a1h_in1k", APACHE, A1H),
    hub("resnet101.a1_in1k", APACHE, A1),
    hub("resnet101.tv_in1k", BSD, TV),
    hub("resnet101.tv2_in1k", BSD, TV2),
    hub("resnet50.a1h_in1k", APACHE, A1H),
    hub("resnet50.a1_in1k", APACHE, A1),
    hub("resnet50.tv_in1k", BSD, TV),
    hub("resnet50.tv2_in1k", BSD, TV2),
    hub("wide_resnet50_2.racm_in1k", APACHE, "ImageNet-1k, timm, RandAugment and CutMix"),
    hub("wide_resnet50_2.tv_in1k", BSD, TV),
    hub("wide_resnet50_2.tv2_in1k", BSD, TV2),
    hub("wide_resnet101_2.tv_in1k", BSD, TV),
    hub("wide_resnet101_2.tv2_in1k", BSD, TV2),
];

/// Short names, and what they stand for in the order of preference.
static ALIASES: [(&str, &[&str]); 5] = [
    ("resnet152", &["resnet152.a1h_in1k", "resnet152.resmem"]),
    ("resnet101", &["resnet101.a1h_in1k"]),
    ("resnet50", &["resnet50.a1h_in1k"]),
    ("wide_resnet50_2", &["wide_resnet50_2.racm_in1k"]),
    ("wide_resnet101_2", &["wide_resnet101_2.tv2_in1k"]),
];

/// Every backbone that can be had by name.
pub fn catalog() -> &'static [CatalogEntry] {
    &CATALOG
}

/// The entries that `name` stands for, in the order of preference: one for a full name, some for an alias, none if the
/// catalog does not have it.
pub fn lookup(name: &str) -> Vec<&'static CatalogEntry> {
    let find = |name: &str| CATALOG.iter().find(|entry| entry.name == name);
    match ALIASES.iter().find(|(alias, _)| *alias == name) {
        Some((_, names)) => names.iter().filter_map(|name| find(name)).collect(),
        None => find(name).into_iter().collect(),
    }
}

/// Names to offer to somebody who asked for `name`.
pub(crate) fn suggestions(name: &str) -> String {
    let stem = name.split('.').next().unwrap_or_default();
    let close: Vec<&str> = CATALOG
        .iter()
        .map(|e| e.name)
        .filter(|n| !stem.is_empty() && n.split('.').next() == Some(stem))
        .collect();
    if close.is_empty() {
        let aliases: Vec<&str> = ALIASES.iter().map(|(alias, _)| *alias).collect();
        format!("the catalog has {}; `rrr backbone list` shows all", aliases.join(", "))
    } else {
        format!("the catalog has {}", close.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_leads_to_entries() {
        for (alias, names) in &ALIASES {
            assert_eq!(lookup(alias).len(), names.len(), "{alias}");
        }
        assert_eq!(lookup("resnet152.resmem")[0].architecture(), "resnet152");
        assert!(lookup("resnet18").is_empty());
        assert!(suggestions("resnet50.foo").contains("resnet50.tv_in1k"));
        assert!(suggestions("vgg").contains("resnet152"));
    }
}
