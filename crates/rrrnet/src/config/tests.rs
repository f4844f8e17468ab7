use super::*;
use std::fs;

fn resolved(text: &str) -> Result<TrainConfig, ConfigError> {
    toml::from_str::<Settings>(text).unwrap().resolve()
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
