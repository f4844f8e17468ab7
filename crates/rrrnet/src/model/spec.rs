//! Architectures as they are written into files.

use crate::cost::net_cost;
use rrr_nn::{BlockSpec, NetSpec, SequenceSpec};
use serde::{Deserialize, Serialize};

/// More than any network has, and so few that no number of weights overflows.
pub(crate) const MAX_BRANCHES: usize = 1 << 10;
const MAX_BLOCKS: usize = 1 << 10;
const MAX_CHANNELS: usize = 1 << 16;

/// A [`NetSpec`] in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpecFile {
    stem: SequenceFile,
    branches: usize,
    branch: SequenceFile,
    #[serde(default, skip_serializing_if = "crate::named::is_default")]
    coarse: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SequenceFile {
    conv1: Option<usize>,
    blocks: Vec<BlockFile>,
    classes: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BlockFile {
    name: String,
    cin: usize,
    width: usize,
    cout: usize,
    stride: usize,
    downsample: bool,
}

impl From<&NetSpec> for SpecFile {
    fn from(spec: &NetSpec) -> Self {
        let (branches, coarse) = (spec.branches, spec.coarse);
        Self { stem: (&spec.stem).into(), branches, branch: (&spec.branch).into(), coarse }
    }
}

impl From<&SequenceSpec> for SequenceFile {
    fn from(s: &SequenceSpec) -> Self {
        let blocks = s.blocks.iter().map(|b| BlockFile {
            name: b.name.clone(),
            cin: b.cin,
            width: b.width,
            cout: b.cout,
            stride: b.stride,
            downsample: b.downsample,
        });
        Self { conv1: s.conv1, blocks: blocks.collect(), classes: s.classes }
    }
}

impl SpecFile {
    /// The architecture, if a network can have it whose weights fill at most `bytes`; files come from anywhere.
    pub(crate) fn into_spec(self, bytes: u64) -> Result<NetSpec, String> {
        if self.branches == 0 {
            return Err("it has no branches".into());
        }
        if self.branches > MAX_BRANCHES {
            return Err(format!("{} branches make no sense", self.branches));
        }
        if self.coarse > self.branches {
            return Err("it has more coarse branches than branches".into());
        }
        let stem = self.stem.into_sequence(None)?;
        let fed = (stem.features() > 0).then(|| stem.features());
        let branch = self.branch.into_sequence(fed)?;
        if branch.classes.is_none_or(|c| c == 0) || stem.classes.is_some() {
            return Err("its classifier is not at the end of the branches".into());
        }
        if branch.conv1.is_none() && branch.blocks.is_empty() {
            return Err("its branches have no layers".into());
        }
        let spec = NetSpec { stem, branches: self.branches, branch, coarse: self.coarse };
        let params = net_cost(&spec, [64; 2]).params;
        // At least a byte each, in 8 bits.
        if params > bytes {
            return Err(format!(
                "an architecture of {params} parameters does not fit a file of {bytes} bytes"
            ));
        }
        Ok(spec)
    }
}

impl SequenceFile {
    /// Checks that every layer fits the one before it; `fed` is the number of channels that come in.
    fn into_sequence(self, fed: Option<usize>) -> Result<SequenceSpec, String> {
        let mut channels = match (fed, self.conv1) {
            (Some(_), Some(_)) => return Err("its branches begin with conv1 although there is a stem".into()),
            (fed, conv1) => fed.or(conv1).unwrap_or(0),
        };
        let possible = |channels: usize| (1..=MAX_CHANNELS).contains(&channels);
        if self.conv1.is_some_and(|channels| !possible(channels)) || self.blocks.len() > MAX_BLOCKS {
            return Err("its layers make no sense".into());
        }
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for b in self.blocks {
            let skips = b.downsample || (b.cin == b.cout && b.stride == 1);
            let sized = [b.cin, b.width, b.cout].into_iter().all(possible) && matches!(b.stride, 1 | 2);
            if b.cin != channels || !sized || !skips {
                return Err(format!("block {} does not fit the layer before it", b.name));
            }
            channels = b.cout;
            blocks.push(BlockSpec {
                name: b.name,
                cin: b.cin,
                width: b.width,
                cout: b.cout,
                stride: b.stride,
                downsample: b.downsample,
            });
        }
        if self.classes.is_some() && channels == 0 {
            return Err("its branches have no layers".into());
        }
        Ok(SequenceSpec { conv1: self.conv1, blocks, classes: self.classes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, PlanOptions};

    #[test]
    fn an_architecture_survives_the_file() {
        let spec = Plan::new(PlanOptions { coarse: 3, ..PlanOptions::paper(20) }).unwrap().spec().clone();
        let text = serde_json::to_string(&SpecFile::from(&spec)).unwrap();
        let back: SpecFile = serde_json::from_str(&text).unwrap();
        assert_eq!(back.clone().into_spec(1 << 30).unwrap(), spec);
        assert!(back.into_spec(1 << 20).is_err(), "a file that is too small");
    }

    #[test]
    fn architectures_that_do_not_fit_together_are_refused() {
        let spec = Plan::new(PlanOptions::paper(20)).unwrap().spec().clone();
        type Break = fn(&mut SpecFile);
        let breaks: [Break; 11] = [
            |s| s.branches = 1_000_000_000_000,
            |s| s.stem.conv1 = Some(0),
            |s| s.branch.blocks[1].width = 1 << 40,
            |s| s.branch.blocks[1].width = 1 << 15,
            |s| s.branch.blocks.clear(),
            |s| s.coarse = s.branches + 1,
            |s| s.branches = 0,
            |s| s.branch.classes = None,
            |s| s.branch.blocks[1].cin += 1,
            |s| s.branch.blocks[0].downsample = false,
            |s| s.branch.conv1 = Some(64),
        ];
        for (i, damage) in breaks.iter().enumerate() {
            let mut file = SpecFile::from(&spec);
            damage(&mut file);
            assert!(file.into_spec(100 << 20).is_err(), "{i}");
        }
    }
}
