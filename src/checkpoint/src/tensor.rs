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
