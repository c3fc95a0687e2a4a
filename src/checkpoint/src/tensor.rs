//! A tensor in host memory: name, type, shape, and its bytes in row-major order, little endian.

use std::fmt;

use safetensors::Dtype as FileDtype;

use crate::Error;

/// The element types that checkpoints hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    U8,
    /// One byte an element: 0 or 1.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::U8 | Dtype::Bool => 1,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
    }

    /// The name in this program's recipes and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::I64 => "i64",
            Dtype::I32 => "i32",
            Dtype::U8 => "u8",
            Dtype::Bool => "bool",
        }
    }

    pub(crate) fn to_file(self) -> FileDtype {
        match self {
            Dtype::F64 => FileDtype::F64,
            Dtype::F32 => FileDtype::F32,
            Dtype::F16 => FileDtype::F16,
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::I64 => FileDtype::I64,
            Dtype::I32 => FileDtype::I32,
            Dtype::U8 => FileDtype::U8,
            Dtype::Bool => FileDtype::BOOL,
        }
    }

    /// None for the types of safetensors that checkpoints do not hold.
    pub(crate) fn from_file(dtype: FileDtype) -> Option<Self> {
        Some(match dtype {
            FileDtype::F64 => Dtype::F64,
            FileDtype::F32 => Dtype::F32,
            FileDtype::F16 => Dtype::F16,
            FileDtype::BF16 => Dtype::Bf16,
            FileDtype::I64 => Dtype::I64,
            FileDtype::I32 => Dtype::I32,
            FileDtype::U8 => Dtype::U8,
            FileDtype::BOOL => Dtype::Bool,
            _ => return None,
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One named tensor.
#[derive(Clone, PartialEq, Eq)]
pub struct TensorData {
    pub name: String,
    pub dtype: Dtype,
    /// Empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major, little endian: the product of `shape` times the size of `dtype`.
    pub bytes: Vec<u8>,
}

impl TensorData {
    /// Checks that the name can be a key and that the bytes fill the shape.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |reason: String| Error::InvalidTensor {
            name: self.name.clone(),
            reason,
        };
        if self.name.is_empty() || self.name == "__metadata__" {
            return Err(wrong("safetensors keeps this name for itself".into()));
        }
        let expected = self
            .shape
            .iter()
            .try_fold(self.dtype.size(), |bytes, &n| bytes.checked_mul(n));
        if expected != Some(self.bytes.len()) {
            let (dtype, shape, found) = (self.dtype, &self.shape, self.bytes.len());
            return Err(wrong(format!(
                "{found} bytes do not fill {dtype} {shape:?}"
            )));
        }
        Ok(())
    }
}

impl TensorData {
    /// How many values are NaN or infinite, or would be as f32; none of an integer type are.
    pub fn non_finite(&self) -> usize {
        let values = &self.bytes;
        // In f16 and bf16 an exponent of ones says so.
        let ones = |mask: u16| move |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & mask == mask;
        match self.dtype {
            Dtype::F16 => count(values, ones(0x7c00)),
            Dtype::Bf16 => count(values, ones(0x7f80)),
            Dtype::F32 => count(values, |b| !f32::from_le_bytes(*b).is_finite()),
            Dtype::F64 => count(values, |b| !(f64::from_le_bytes(*b) as f32).is_finite()),
            Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::Bool => 0,
        }
    }
}

/// How many of the elements of N bytes are `wanted`.
fn count<const N: usize>(bytes: &[u8], wanted: impl Fn(&[u8; N]) -> bool) -> usize {
    let (elements, _) = bytes.as_chunks();
    elements.iter().filter(|element| wanted(element)).count()
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TensorData {
            name,
            dtype,
            shape,
            bytes,
        } = self;
        write!(f, "{name}: {dtype} {shape:?} ({} bytes)", bytes.len())
    }
}
