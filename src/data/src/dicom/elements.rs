//! The data elements of a DICOM file, as borrowed bytes (DICOM PS3.5, chapter 7; PS3.10, chapter 7).
//!
//! A reader of our own because of what general ones did with real and damaged CT files: they refuse a file whose
//! file-meta group holds a name over 16 characters, take a number with VR UN for something else, and allocate whatever
//! length a damaged element claims. This one copies nothing, checks every length against the file, and leaves the
//! meaning of values to who knows the attribute.

/// `group << 16 | element`.
pub(crate) type Tag = u32;

pub(crate) const ITEM: Tag = 0xFFFE_E000;
const ITEM_END: Tag = 0xFFFE_E00D;
pub(crate) const SEQUENCE_END: Tag = 0xFFFE_E0DD;
const UNDEFINED: u32 = u32::MAX;
/// Sequences in sequences; real files stay below ten.
const DEEPEST: u32 = 32;

/// Why the elements of a file cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The value of `tag` (0 where the tag itself is cut) should have `needed` bytes; the file has `held` of them.
    Truncated {
        tag: Tag,
        held: usize,
        needed: usize,
    },
    /// What stands at `offset` is no element.
    Malformed { offset: usize },
}

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// Whether each element states its VR.
    pub(crate) explicit: bool,
    pub(crate) big_endian: bool,
}

impl Encoding {
    pub(crate) const IMPLICIT: Self = Self {
        explicit: false,
        big_endian: false,
    };
    pub(crate) const EXPLICIT: Self = Self {
        explicit: true,
        big_endian: false,
    };
    pub(crate) const EXPLICIT_BIG_ENDIAN: Self = Self {
        explicit: true,
        big_endian: true,
    };

    pub(crate) fn number(self, bytes: [u8; 2]) -> u16 {
        match self.big_endian {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        }
    }

    fn length(self, bytes: [u8; 4]) -> u32 {
        match self.big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        }
    }
}

/// What precedes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tag: Tag,
    /// The VR, where the file states it.
    pub(crate) vr: Option<[u8; 2]>,
    /// Bytes of the value; `None` for undefined length, where delimiters end it.
    pub(crate) length: Option<usize>,
    /// How elements inside the value are written: under VR UN always implicit little endian (PS3.5, 6.2.2).
    inside: Encoding,
}

/// Goes through elements.
#[derive(Debug, Clone)]
pub(crate) struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
    encoding: Encoding,
}

impl<'a> Elements<'a> {
    pub(crate) fn new(bytes: &'a [u8], encoding: Encoding) -> Self {
        Self {
            bytes,
            at: 0,
            encoding,
        }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Bytes that have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The tag that comes next, without moving; `None` where fewer than four bytes are left.
    pub(crate) fn peek_tag(&self) -> Option<Tag> {
        self.peek_tag_in(self.encoding)
    }

    fn peek_tag_in(&self, encoding: Encoding) -> Option<Tag> {
        let [g0, g1, e0, e1] = *self.rest().first_chunk()?;
        let [group, element] = [[g0, g1], [e0, e1]].map(|half| encoding.number(half));
        Some(Tag::from(group) << 16 | Tag::from(element))
    }

    /// The next element's header; `None` at the end of the data.
    pub(crate) fn header(&mut self) -> Result<Option<Header>, Damage> {
        match self.rest() {
            [] => Ok(None),
            _ => self.header_in(self.encoding).map(Some),
        }
    }

    fn header_in(&mut self, encoding: Encoding) -> Result<Header, Damage> {
        let start = self.at;
        let tag = self.peek_tag_in(encoding).ok_or(Damage::Truncated {
            tag: 0,
            held: self.rest().len(),
            needed: 4,
        })?;
        self.at += 4;
        let mut inside = encoding;
        let mut stated = None;
        let length = if !encoding.explicit || tag >> 16 == 0xFFFE {
            encoding.length(self.array(tag)?)
        } else {
            let vr: [u8; 2] = self.array(tag)?;
            if !vr.iter().all(u8::is_ascii_uppercase) {
                return Err(Damage::Malformed { offset: start });
            }
            stated = Some(vr);
            if &vr == b"UN" {
                inside = Encoding::IMPLICIT;
            }
            if has_short_length(vr) {
                u32::from(encoding.number(self.array(tag)?))
            } else {
                let _reserved: [u8; 2] = self.array(tag)?;
                encoding.length(self.array(tag)?)
            }
        };
        Ok(Header {
            tag,
            vr: stated,
            length: (length != UNDEFINED).then_some(length as usize),
            inside,
        })
    }

    /// The value of an element of known length.
    pub(crate) fn take(&mut self, tag: Tag, length: usize) -> Result<&'a [u8], Damage> {
        let rest = self.rest();
        let value = rest.get(..length).ok_or(Damage::Truncated {
            tag,
            held: rest.len(),
            needed: length,
        })?;
        self.at += length;
        Ok(value)
    }

    /// Passes over the value of an element.
    pub(crate) fn skip(&mut self, header: Header) -> Result<(), Damage> {
        match header.length {
            Some(length) => self.take(header.tag, length).map(drop),
            None => self.skip_items(header.inside, 0),
        }
    }

    /// What the element holds, to be read by [`Elements::item`] where it is a sequence; `self` goes on behind it.
    pub(crate) fn inside(&mut self, header: Header) -> Result<Elements<'a>, Damage> {
        let start = self.at;
        self.skip(header)?;
        let held = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Elements::new(held, header.inside))
    }

    /// The elements of the next item of a sequence; `None` after the last.
    pub(crate) fn item(&mut self) -> Result<Option<Elements<'a>>, Damage> {
        let offset = self.at;
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let start = self.at;
        match (header.tag, header.length) {
            (SEQUENCE_END, _) => return Ok(None),
            (ITEM, Some(length)) => drop(self.take(ITEM, length)?),
            (ITEM, None) => self.skip_item(self.encoding, 0)?,
            _ => return Err(Damage::Malformed { offset }),
        }
        let held = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Some(Elements::new(held, self.encoding)))
    }

    /// Items up to the delimiter of their sequence.
    fn skip_items(&mut self, encoding: Encoding, depth: u32) -> Result<(), Damage> {
        loop {
            let offset = self.at;
            let header = self.header_in(encoding)?;
            match (header.tag, header.length) {
                (SEQUENCE_END, _) => return Ok(()),
                (ITEM, Some(length)) => drop(self.take(ITEM, length)?),
                (ITEM, None) if depth < DEEPEST => self.skip_item(encoding, depth)?,
                _ => return Err(Damage::Malformed { offset }),
            }
        }
    }

    /// Elements up to the delimiter of their item.
    fn skip_item(&mut self, encoding: Encoding, depth: u32) -> Result<(), Damage> {
        loop {
            let header = self.header_in(encoding)?;
            match header.length {
                _ if header.tag == ITEM_END => return Ok(()),
                Some(length) => drop(self.take(header.tag, length)?),
                None => self.skip_items(header.inside, depth + 1)?,
            }
        }
    }

    fn array<const N: usize>(&mut self, tag: Tag) -> Result<[u8; N], Damage> {
        let rest = self.rest();
        let array = *rest.first_chunk().ok_or(Damage::Truncated {
            tag,
            held: rest.len(),
            needed: N,
        })?;
        self.at += N;
        Ok(array)
    }
}

/// The VRs whose length has 16 bits (PS3.5, table 7.1-2); all others, future ones included, have 32.
fn has_short_length(vr: [u8; 2]) -> bool {
    matches!(
        &vr,
        b"AE"
            | b"AS"
            | b"AT"
            | b"CS"
            | b"DA"
            | b"DS"
            | b"DT"
            | b"FD"
            | b"FL"
            | b"IS"
            | b"LO"
            | b"LT"
            | b"PN"
            | b"SH"
            | b"SL"
            | b"SS"
            | b"ST"
            | b"TM"
            | b"UI"
            | b"UL"
            | b"US"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE_SEQUENCE: &[u8] = &[
        0x09, 0x00, 0x10, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, // undefined length
        0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF, // item, undefined length
        0x09, 0x00, 0x11, 0x11, b'U', b'N', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, // implicit inside
        0xFE, 0xFF, 0x00, 0xE0, 0x0A, 0x00, 0x00, 0x00, // item of 10 bytes
        0x08, 0x00, 0x60, 0x00, 0x02, 0x00, 0x00, 0x00, b'C', b'T', //
        0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0, // end of the UN sequence
        0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0, // end of the item
        0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0, // end of the sequence
        0x28, 0x00, 0x10, 0x00, b'U', b'S', 2, 0, 64, 0,
    ];

    #[test]
    fn nested_sequences_of_undefined_length_are_passed_over() {
        let mut elements = Elements::new(PRIVATE_SEQUENCE, Encoding::EXPLICIT);
        let sequence = elements.header().unwrap().unwrap();
        assert_eq!((sequence.tag, sequence.length), (0x0009_1110, None));
        elements.skip(sequence).unwrap();
        let rows = elements.header().unwrap().unwrap();
        assert_eq!((rows.tag, rows.length), (0x0028_0010, Some(2)));
        assert_eq!(elements.take(rows.tag, 2), Ok(&[64, 0][..]));
        assert_eq!(elements.header(), Ok(None));
    }

    #[test]
    fn every_cut_is_damage_and_every_byte_may_be_wrong() {
        let walk = |bytes: &[u8]| -> Result<usize, Damage> {
            let mut elements = Elements::new(bytes, Encoding::EXPLICIT);
            let mut seen = 0;
            while let Some(header) = elements.header()? {
                elements.skip(header)?;
                seen += 1;
            }
            Ok(seen)
        };
        assert_eq!(walk(PRIVATE_SEQUENCE), Ok(2));
        let first_ends = PRIVATE_SEQUENCE.len() - 10;
        for end in (1..PRIVATE_SEQUENCE.len()).filter(|&end| end != first_ends) {
            assert!(walk(&PRIVATE_SEQUENCE[..end]).is_err(), "cut at {end}");
        }
        for at in 0..PRIVATE_SEQUENCE.len() {
            for value in 0..=255 {
                let mut bytes = PRIVATE_SEQUENCE.to_vec();
                bytes[at] = value;
                let _ = walk(&bytes);
            }
        }
    }

    #[test]
    fn endless_nesting_ends() {
        let mut bytes = vec![
            0x09, 0, 0x10, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
        ];
        for _ in 0..100_000 {
            bytes.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
            bytes.extend([
                0x09, 0, 0x10, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
            ]);
        }
        let mut elements = Elements::new(&bytes, Encoding::EXPLICIT);
        let header = elements.header().unwrap().unwrap();
        assert!(matches!(
            elements.skip(header),
            Err(Damage::Malformed { .. })
        ));
    }
}
