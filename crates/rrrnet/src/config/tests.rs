use super::*;
use std::fs;

/// Every optional key at the value that says least: what a recipe says instead must not come back.
const LEAST: [(&str, &str); 38] = [
    ("image_column", "''"),
    ("label_column", "''"),
    ("backbone", "''"),
    ("mean", "[0, 0, 0]\nstd = [1, 1, 1]"),
    ("std", "[1, 1, 1]\nmean = [0, 0, 0]"),
    ("init", "''"),
    ("teacher", "'auto'"),
    ("teacher_share", "1e-9\nteacher = 'auto'"),
    ("teacher_temperature", "1.0\nteacher = 'auto'"),
    ("blocks", "[0, 0, 0, 0]"),
    ("split", "'layer3.0'"),
    ("branches", "1"),
    ("coarse_branches", "0"),
    ("round_to", "1"),
    ("budget", "[0, 0, 0, 0]"),
    ("recycle", "'paper'"),
    ("train_per_class", "1"),
    ("val_per_class", "0"),
    ("test_per_class", "0"),
    ("val_fraction", "0.0"),
    ("test_fraction", "0.0"),
    ("epochs", "1"),
    ("batch_size", "1"),
    ("lr", "1e-9"),
    ("stem_lr", "0.0"),
    ("weight_decay", "0.0"),
    ("label_smoothing", "0.0"),
    ("schedule", "'constant'"),
    ("ema_epochs", "0"),
    ("ema_decay", "0.0"),
    ("warm_passes", "0"),
    ("augmentation", "'none'"),
    ("independent_batches", "false"),
    ("threads", "0"),
    ("checkpoint_every", "0"),
    ("select", "'last'"),
    ("skip_bad", "false"),
    ("memory_budget_mib", "0"),
];

fn resolved(text: &str) -> Result<TrainConfig, ConfigError> {
    toml::from_str::<Settings>(text).unwrap().resolve()
}

#[test]
fn a_configuration_comes_back_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let mut meaningful = 0;
    for (recipe, _) in RECIPES {
        for method in Method::NAMES {
            for (key, value) in LEAST {
                let asked =
                    format!("data = 'photos'\nrecipe = '{recipe}'\nmethod = '{method}'\n{key} = {value}\n");
                let with_branches = format!("{asked}branches = 2\n");
                let texts = [Some(asked), (key != "branches").then_some(with_branches)];
                for text in texts.iter().flatten() {
                    let Ok(config) = resolved(text) else { continue };
                    fs::write(&path, config.to_toml()).unwrap();
                    assert_eq!(TrainConfig::read(&path).unwrap(), config, "{text}");
                    assert_eq!(Settings::read(&path).unwrap().resolve().unwrap(), config, "{text}");
                    meaningful += 1;
                }
            }
        }
    }
    assert!(meaningful > 600, "{meaningful}");
}

#[test]
fn every_key_of_a_configuration_is_tried() {
    let text = resolved("data = 'photos'\nteacher = 'auto'\nval_per_class = 1").unwrap().to_toml();
    let others = ["data", "method", "recipe", "image_size", "resize", "seed", "precision"];
    for key in toml::from_str::<toml::Table>(&text).unwrap().keys() {
        let tried = LEAST.iter().any(|(tried, _)| tried == key) || others.contains(&key.as_str());
        assert!(tried, "{key}");
    }
}

/// What [`TrainConfig::read`] says of the file of a run in which `from` was replaced.
fn said_of(from: &str, to: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let text = resolved("data = 'photos'\nteacher = 'auto'\nprecision = 'f32'").unwrap().to_toml();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replace(from, to)).unwrap();
    let said = TrainConfig::read(&path).unwrap_err().to_string();
    let place = format!("{}: ", path.display());
    said.strip_prefix(&place).unwrap_or_else(|| panic!("no `{place}` in: {said}")).into()
}

#[test]
fn an_edited_file_is_checked_like_what_somebody_asks_for() {
    for (from, to, said) in [
        ("epochs = 20\n", "epochs = 0\n", "epochs = 0 makes no sense"),
        ("batch_size = 32", "batch_size = 0", "batch_size = 0 makes no sense"),
        ("image_size = 64", "image_size = 0", "image_size = 0 makes no sense"),
        ("ema_decay = 0.98", "ema_decay = 7.98", "ema_decay = 7.98"),
        ("label_smoothing = 0.0", "label_smoothing = 7", "label_smoothing = 7 makes no sense"),
        ("precision = \"f32\"", "precision = \"auto\"", "precision = auto makes no sense"),
        ("recycle = \"coherent\"\n", "", "no recycle given"),
        ("branches = 8\n", "", "no branches given"),
        ("teacher_share = 0.9\n", "", "no teacher_share given"),
        ("method = \"rrr\"", "method = \"probe\"", "blocks has no meaning for method probe"),
        ("method = \"rrr\"", "method = \"reduced\"", "budget has no meaning for method reduced"),
    ] {
        let text = said_of(from, to);
        assert!(text.starts_with(said), "{text}");
    }
}

#[test]
fn numbers_are_finite_and_counts_have_an_end() {
    for (key, value) in [
        ("mean", "[nan, 0, 0]\nstd = [1, 1, 1]"),
        ("mean", "[1e300, 0, 0]\nstd = [1, 1, 1]"),
        ("std", "[1, 1, inf]\nmean = [0, 0, 0]"),
        ("std", "[1, 1, 1e-300]\nmean = [0, 0, 0]"),
        ("weight_decay", "inf"),
        ("lr", "inf"),
        ("stem_lr", "nan"),
        ("label_smoothing", "nan"),
        ("ema_decay", "nan"),
        ("teacher_share", "nan\nteacher = 'auto'"),
        ("teacher_share", "0.0\nteacher = 'auto'"),
        ("teacher_share", "1e-300\nteacher = 'auto'"),
        ("teacher_share", "1.1\nteacher = 'auto'"),
        ("teacher_temperature", "1e300\nteacher = 'auto'"),
        ("val_fraction", "nan"),
        ("test_fraction", "nan"),
    ] {
        let text = resolved(&format!("data = 'photos'\n{key} = {value}")).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{key} = ")), "{text}");
    }
    let huge = usize::MAX;
    let photos = |recipe: &str| Settings {
        data: Some("photos".into()),
        recipe: Some(recipe.into()),
        ..Settings::default()
    };
    for (settings, key) in [
        (Settings { epochs: Some(huge), ..photos("paper") }, "epochs"),
        (Settings { batch_size: Some(huge), ..photos("fast") }, "batch_size"),
        (Settings { warm_passes: Some(huge), ..photos("fast") }, "warm_passes"),
        (Settings { checkpoint_every: Some(huge), ..photos("fast") }, "checkpoint_every"),
        (Settings { memory_budget_mib: Some(u64::MAX), ..photos("fast") }, "memory_budget_mib"),
        (Settings { train_per_class: Some(huge), ..photos("fast") }, "train_per_class"),
        (Settings { blocks: Some(vec![huge; 4]), ..photos("fast") }, "blocks"),
        (Settings { branches: Some(huge), ..photos("best") }, "branches"),
    ] {
        let text = settings.resolve().unwrap_err().to_string();
        assert!(text.starts_with(&format!("{key} = ")), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_no_configuration_file_can_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let data = PathBuf::from(std::ffi::OsStr::from_bytes(b"photos-\xff"));
    let text = Settings { data: Some(data), ..Settings::default() }.resolve().unwrap_err().to_string();
    assert!(text.starts_with("data = ") && text.contains("UTF-8"), "{text}");
}
