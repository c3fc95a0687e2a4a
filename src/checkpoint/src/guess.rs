//! Which architecture a file's weights are of, by the number of their values.

use std::collections::BTreeMap;

use crate::keys::TensorSpec;
use crate::matching::{BACKBONE, CLASSIFIER, FIRST_CONVOLUTIONS};

/// Values of all parameters (`weight` and `bias`) but the first convolution's filters and the classifier.
///
/// ```python
/// model = timm.create_model(name, num_classes=0)
/// first = model.pretrained_cfg["first_conv"] + ".weight"
/// sum(p.numel() for n, p in model.named_parameters() if n != first)
/// ```
const PARAMETERS: [(&str, usize); 18] = [
    ("efficientnet_b0", 4_006_684),
    ("efficientnet_b1", 6_512_320),
    ("efficientnet_b2", 7_700_130),
    ("efficientnetv2_rw_m", 51_082_578),
    ("efficientnetv2_rw_s", 22_147_648),
    ("resnest101e", 46_224_288),
    ("resnest14d", 8_561_824),
    ("resnest26d", 15_019_584),
    ("resnest50d", 25_433_376),
    ("resnet101", 42_490_752),
    ("resnet18", 11_167_104),
    ("resnet34", 21_275_264),
    ("resnet50", 23_498_624),
    ("resnet50d", 23_526_400),
    ("resnext50_32x4d", 22_970_496),
    ("seresnet50", 26_029_616),
    ("seresnext26d_32x4d", 14_759_648),
    ("seresnext50_32x4d", 25_501_488),
];

/// The architecture that a file's weights are of where that is certain and another than `arch`.
pub fn other_architecture(found: &[TensorSpec], arch: &str) -> Option<&'static str> {
    let is_known = PARAMETERS.iter().any(|(name, _)| *name == arch);
    architecture(found).filter(|theirs| is_known && *theirs != arch)
}

/// timm's name of the architecture; none where no known one has just so many values.
pub(crate) fn architecture(found: &[TensorSpec]) -> Option<&'static str> {
    let is_backbone = |spec: &TensorSpec| spec.name.contains(BACKBONE);
    let in_model = found.iter().any(is_backbone);
    let mut values: BTreeMap<&str, usize> = BTreeMap::new();
    for spec in found.iter().filter(|spec| !in_model || is_backbone(spec)) {
        let inner = match spec.name.split_once(BACKBONE) {
            Some((_, inner)) => inner,
            None => spec.name.strip_prefix("module.").unwrap_or(&spec.name),
        };
        let is_parameter = inner.ends_with(".weight") || inner.ends_with(".bias");
        if is_parameter && !FIRST_CONVOLUTIONS.contains(&inner) && !CLASSIFIER.contains(&inner) {
            values.insert(inner, spec.shape.iter().product());
        }
    }
    let total: usize = values.values().sum();
    let known = PARAMETERS.iter().find(|(_, count)| *count == total);
    known.map(|(name, _)| *name)
}
