//! The backbones that there are, by timm's names.
//!
//! They are built by `nn`, which links libtorch and which neither a recipe nor a plan may know; a test there holds this list to
//! its table. Here it lets a wrong name be refused before the first job.

/// In the order of `nn`'s table.
pub const ARCHITECTURES: [&str; 9] = [
    "resnest14d",
    "resnest26d",
    "resnest50d",
    "seresnext26d_32x4d",
    "seresnext50_32x4d",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnetv2_rw_s",
    "efficientnetv2_rw_m",
];
