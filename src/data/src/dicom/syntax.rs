//! The transfer syntaxes: how a data set's elements are written and in what form its pixels are (PS3.5, chapter 10).

use super::elements::Encoding;

/// In what form PixelData is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PixelForm {
    /// Words one after the other, frame after frame.
    Native,
    /// A fragment a frame, of native words.
    NativeFragments,
    /// Fragments of RLE segments.
    Rle,
    /// Fragments of JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestreams.
    Codestream,
    /// Another form, which is not read.
    Unknown,
}

/// What a transfer syntax UID says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) encoding: Encoding,
    pub(crate) deflated: bool,
    pub(crate) form: PixelForm,
}

impl Syntax {
    /// The syntax with this UID. One that is not known is taken to be explicit little endian with pixels of a form that
    /// is not read: such are all that have come since 1998.
    pub(crate) fn of(uid: &str) -> Self {
        use PixelForm::{Codestream, Native, NativeFragments, Rle, Unknown};
        let (encoding, form) = match uid.strip_prefix("1.2.840.10008.1.2") {
            Some("") => (Encoding::IMPLICIT, Native),
            Some(".1" | ".1.99") => (Encoding::EXPLICIT, Native),
            Some(".2") => (Encoding::EXPLICIT_BIG_ENDIAN, Native),
            Some(".1.98") => (Encoding::EXPLICIT, NativeFragments),
            Some(".5") => (Encoding::EXPLICIT, Rle),
            // JPEG baseline, extended, lossless, lossless first-order; JPEG-LS; JPEG 2000; HTJ2K.
            Some(
                ".4.50" | ".4.51" | ".4.57" | ".4.70" | ".4.80" | ".4.81" | ".4.90" | ".4.91"
                | ".4.201" | ".4.202" | ".4.203",
            ) => (Encoding::EXPLICIT, Codestream),
            _ => (Encoding::EXPLICIT, Unknown),
        };
        Self {
            encoding,
            deflated: uid == "1.2.840.10008.1.2.1.99",
            form,
        }
    }
}
