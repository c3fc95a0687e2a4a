//! JPEG with a sequential DCT and Huffman codes, one component of 8 or 12 bits (ITU-T T.81: the baseline and extended
//! processes). The inverse DCT is the one of the IJG's libjpeg ("islow", Loeffler, Ligtenberg and Moschytz 1989), so that
//! pixels equal those of nearly every other reader.
//!
//! Our own because no kept crate decodes 12 bits, and the one that decodes 8 (jpeg-decoder) differs from libjpeg by up to
//! 4.

/// Where the coefficients of a block lie, by their order in the codestream.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The samples of a codestream's image, in rows; or what is wrong, as the end of a sentence that begins with "PixelData".
pub(crate) fn decode(codestream: &[u8]) -> Result<Vec<u16>, String> {
    let mut tables = Tables::default();
    let mut frame = None;
    let mut rest = codestream.get(2..).unwrap_or_default();
    loop {
        let [0xFF, marker, behind @ ..] = rest else {
            return Err("holds no JPEG marker where one should be".into());
        };
        if *marker == 0xFF {
            rest = &rest[1..];
            continue;
        }
        let length = behind
            .first_chunk()
            .map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        let segment = behind.get(2..length).ok_or("ends in a JPEG header")?;
        match (*marker, segment) {
            (0xDB, _) => tables.read_quantization(segment)?,
            (0xC4, _) => tables.read_huffman(segment)?,
            (0xDD, [high, low]) => {
                tables.restart_interval = usize::from(u16::from_be_bytes([*high, *low]));
            }
            (0xC0 | 0xC1, _) if frame.is_some() => {
                return Err("has two JPEG frame headers".into());
            }
            (0xC0 | 0xC1, [precision @ (8 | 12), y0, y1, x0, x1, 1, _, _, table]) => {
                let [rows, cols] = [[*y0, *y1], [*x0, *x1]].map(u16::from_be_bytes);
                frame = Some(Frame {
                    precision: *precision,
                    rows: usize::from(rows),
                    cols: usize::from(cols),
                    quantization: usize::from(*table),
                });
            }
            // One component and its tables. The spectrum that follows is always the whole one in this process; one of
            // pydicom's files says otherwise, and means nothing by it.
            (0xDA, [1, _, selectors, _, _, _]) => {
                let frame = frame.ok_or("has no JPEG frame header")?;
                return scan(
                    &frame,
                    &tables,
                    *selectors,
                    behind.get(length..).unwrap_or_default(),
                );
            }
            (0xC0..=0xCF | 0xDA, _) if *marker != 0xCC => {
                return Err("is JPEG of a kind that is not read".into());
            }
            _ => {}
        }
        rest = behind.get(length..).unwrap_or_default();
    }
}

struct Frame {
    precision: u8,
    rows: usize,
    cols: usize,
    quantization: usize,
}

#[derive(Default)]
struct Tables {
    quantization: [Option<[i64; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// Blocks between restart markers; 0 for none.
    restart_interval: usize,
}

impl Tables {
    /// DQT (B.2.4.1): tables in zigzag order.
    fn read_quantization(&mut self, mut segment: &[u8]) -> Result<(), String> {
        const DAMAGED: &str = "has a damaged JPEG quantization table";
        while let [head, rest @ ..] = segment {
            let width = 1 + usize::from(head >> 4);
            let slot = self.quantization.get_mut(usize::from(head & 15));
            let (Some(slot), Some(values), true) = (slot, rest.get(..64 * width), width <= 2)
            else {
                return Err(DAMAGED.into());
            };
            let mut table = [0; 64];
            for (place, value) in ZIGZAG.iter().zip(values.chunks_exact(width)) {
                table[*place] = value
                    .iter()
                    .fold(0, |number, byte| number << 8 | i64::from(*byte));
            }
            *slot = Some(table);
            segment = &rest[64 * width..];
        }
        Ok(())
    }

    /// DHT (B.2.4.2).
    fn read_huffman(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let [head, rest @ ..] = segment {
            let (table, used) = rest
                .first_chunk()
                .and_then(|counts| Huffman::new(counts, &rest[16..]))
                .ok_or("has a damaged JPEG Huffman table")?;
            let class = match head >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err("has a damaged JPEG Huffman table".into()),
            };
            let slot = class.get_mut(usize::from(head & 15));
            *slot.ok_or("has a damaged JPEG Huffman table")? = Some(table);
            segment = &rest[16 + used..];
        }
        Ok(())
    }
}

/// Codes by length and order (annex C).
struct Huffman {
    /// For each beginning of eight bits the value and the length of its code; length 0 where the code is longer.
    short: [(u8, u8); 256],
    /// For each length the first code that is longer, at the top of 16 bits; and what to add to a code of this length to
    /// have its index.
    ends: [(u32, i32); 17],
    values: Vec<u8>,
}

impl Huffman {
    /// The table of these numbers of codes of each length, and how many bytes of `values` it takes.
    fn new(counts: &[u8; 16], values: &[u8]) -> Option<(Self, usize)> {
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let values = values.get(..total)?.to_vec();
        let mut short = [(0, 0); 256];
        let mut ends = [(0, 0); 17];
        let (mut code, mut index) = (0_u32, 0_u32);
        for (length, &count) in (1_u32..).zip(counts) {
            let offset = index as i32 - code as i32;
            for _ in 0..count {
                if length <= 8 {
                    let first = (code << (8 - length)) as usize;
                    let value = *values.get(index as usize)?;
                    short
                        .get_mut(first..first + (1 << (8 - length)))?
                        .fill((value, length as u8));
                }
                code += 1;
                index += 1;
            }
            if code > 1 << length {
                return None;
            }
            ends[length as usize] = (code << (16 - length), offset);
            code <<= 1;
        }
        Some((
            Self {
                short,
                ends,
                values,
            },
            total,
        ))
    }

    fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, &'static str> {
        let next = bits.peek(16);
        let (value, length) = self.short[(next >> 8) as usize];
        if length > 0 {
            bits.skip(length.into());
            return Ok(value);
        }
        for length in 9..=16 {
            let (end, offset) = self.ends[length as usize];
            if next < end {
                bits.skip(length);
                let index = (next >> (16 - length)) as i32 + offset;
                return self
                    .values
                    .get(index as usize)
                    .copied()
                    .ok_or("holds a damaged JPEG Huffman code");
            }
        }
        Err("holds a damaged JPEG Huffman code")
    }
}

fn scan(frame: &Frame, tables: &Tables, selectors: u8, data: &[u8]) -> Result<Vec<u16>, String> {
    const MISSING: &str = "uses a JPEG table that it does not hold";
    let quantization = tables.quantization.get(frame.quantization);
    let quantization = quantization.and_then(Option::as_ref).ok_or(MISSING)?;
    let [dc, ac] = [
        tables.dc.get(usize::from(selectors >> 4)),
        tables.ac.get(usize::from(selectors & 15)),
    ]
    .map(|table| table.and_then(Option::as_ref).ok_or(MISSING));
    let (dc, ac) = (dc?, ac?);

    let (rows, cols) = (frame.rows, frame.cols);
    let mut samples = vec![0; rows * cols];
    let mut bits = Bits::new(data);
    let mut previous = 0;
    let mut decoded = 0;
    for top in (0..rows).step_by(8) {
        for left in (0..cols).step_by(8) {
            if tables.restart_interval > 0 && decoded > 0 && decoded % tables.restart_interval == 0
            {
                bits.restart(decoded / tables.restart_interval - 1)?;
                previous = 0;
            }
            let mut block = coefficients(&mut bits, dc, ac, quantization, &mut previous)?;
            inverse_dct(&mut block, frame.precision);
            decoded += 1;
            let width = (cols - left).min(8);
            for (y, row) in block.chunks_exact(8).enumerate().take(rows - top) {
                let start = (top + y) * cols + left;
                for (sample, &value) in samples[start..start + width].iter_mut().zip(row) {
                    *sample = value as u16;
                }
            }
        }
        if bits.overrun() {
            return Err("is cut short: its JPEG data end before the image does".into());
        }
    }
    Ok(samples)
}

/// The dequantized coefficients of the next block, in rows (F.2.2).
fn coefficients(
    bits: &mut Bits<'_>,
    dc: &Huffman,
    ac: &Huffman,
    quantization: &[i64; 64],
    previous: &mut i64,
) -> Result<[i64; 64], &'static str> {
    const DAMAGED: &str = "holds a damaged JPEG block";
    let mut block = [0; 64];
    let size = dc.decode(bits)?;
    if size > 16 {
        return Err(DAMAGED);
    }
    // 16 bits, as in libjpeg: damaged differences must not add up without end.
    *previous = i64::from((*previous + bits.signed(size.into())) as i16);
    block[0] = *previous * quantization[0];
    let mut k = 1;
    while k < 64 {
        let symbol = ac.decode(bits)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (zeros, size) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ => {
                k += zeros;
                let place = *ZIGZAG.get(k).ok_or(DAMAGED)?;
                block[place] = bits.signed(size) * quantization[place];
                k += 1;
            }
        }
    }
    Ok(block)
}

/// Bits of a fraction in the constants below.
const FRACTION: u32 = 13;

/// Eight coefficients to eight samples, scaled by 2 to the power of FRACTION.
fn inverse_dct_8(c: [i64; 8]) -> [i64; 8] {
    // Even part.
    let z1 = (c[2] + c[6]) * 4433;
    let t2 = z1 - c[6] * 15137;
    let t3 = z1 + c[2] * 6270;
    let t0 = (c[0] + c[4]) << FRACTION;
    let t1 = (c[0] - c[4]) << FRACTION;
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
    // Odd part.
    let z5 = (c[7] + c[3] + c[5] + c[1]) * 9633;
    let z1 = (c[7] + c[1]) * -7373;
    let z2 = (c[5] + c[3]) * -20995;
    let z3 = (c[7] + c[3]) * -16069 + z5;
    let z4 = (c[5] + c[1]) * -3196 + z5;
    let odd = [
        c[1] * 12299 + z1 + z4,
        c[3] * 25172 + z2 + z3,
        c[5] * 16819 + z2 + z4,
        c[7] * 2446 + z1 + z3,
    ];
    std::array::from_fn(|i| match i {
        0..4 => even[i] + odd[i],
        _ => even[7 - i] - odd[7 - i],
    })
}

/// Coefficients to samples from 0 on, in place: first the columns, then the rows.
fn inverse_dct(block: &mut [i64; 64], precision: u8) {
    // Bits of a fraction that are kept between the two.
    let kept: u32 = if precision == 8 { 2 } else { 1 };
    let descale = |value: i64, bits: u32| (value + (1 << (bits - 1))) >> bits;
    for x in 0..8 {
        let column = inverse_dct_8(std::array::from_fn(|y| block[8 * y + x]));
        for (y, value) in column.into_iter().enumerate() {
            block[8 * y + x] = descale(value, FRACTION - kept);
        }
    }
    let (centre, largest) = (1 << (precision - 1), (1 << precision) - 1);
    for row in block.as_chunks_mut::<8>().0 {
        *row = inverse_dct_8(*row)
            .map(|value| (descale(value, FRACTION + kept + 3) + centre).clamp(0, largest));
    }
}

/// The bits of a scan, the highest first; a byte 0 behind 0xFF is stuffed, another is a marker's (F.1.2.3).
struct Bits<'a> {
    data: &'a [u8],
    buffer: u64,
    held: u32,
    /// Zeros in `buffer` that stand for bits behind a marker or the end.
    made_up: u32,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            buffer: 0,
            held: 0,
            made_up: 0,
        }
    }

    /// Whether bits behind the end were taken.
    fn overrun(&self) -> bool {
        self.made_up > self.held
    }

    fn fill(&mut self) {
        while self.held <= 56 {
            let byte = match self.data {
                [0xFF, 0x00, rest @ ..] => {
                    self.data = rest;
                    0xFF
                }
                [0xFF, ..] | [] => {
                    self.made_up = self.made_up.saturating_add(8);
                    0
                }
                [byte, rest @ ..] => {
                    self.data = rest;
                    *byte
                }
            };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.held += 8;
        }
    }

    /// The next `count` bits, at most 16, without taking them.
    fn peek(&mut self, count: u32) -> u32 {
        if self.held < count {
            self.fill();
        }
        ((self.buffer >> (self.held - count)) & ((1 << count) - 1)) as u32
    }

    fn skip(&mut self, count: u32) {
        self.held -= count;
    }

    /// A number of `size` bits, negative where the first is 0 (EXTEND, F.2.2.1).
    fn signed(&mut self, size: u32) -> i64 {
        if size == 0 {
            return 0;
        }
        let value = i64::from(self.peek(size));
        self.skip(size);
        match value < 1 << (size - 1) {
            true => value - (1 << size) + 1,
            false => value,
        }
    }

    /// Goes to behind the restart marker that follows, which must have this number modulo 8.
    fn restart(&mut self, number: usize) -> Result<(), &'static str> {
        const MISSING: &str = "lacks a JPEG restart marker: it is damaged";
        if self.overrun() {
            return Err(MISSING);
        }
        while let [0xFF, 0xFF, ..] = self.data {
            self.data = &self.data[1..];
        }
        match self.data {
            [0xFF, marker, rest @ ..] if usize::from(*marker) == 0xD0 + number % 8 => {
                *self = Self::new(rest);
                Ok(())
            }
            _ => Err(MISSING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_dct_is_that_of_the_formula() {
        // A.3.3, in floating point.
        let exact = |block: &[i64; 64], x: usize, y: usize| -> f64 {
            let c = |i: usize| if i == 0 { 0.5_f64.sqrt() } else { 1.0 };
            let wave = |x: usize, u: usize| {
                ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos()
            };
            (0..64)
                .map(|i| {
                    let (u, v) = (i % 8, i / 8);
                    c(u) * c(v) * block[i] as f64 * wave(x, u) * wave(y, v) / 4.0
                })
                .sum()
        };
        for precision in [8, 12] {
            let mut state = 7_u64;
            for _ in 0..50 {
                let mut block = [0; 64];
                for value in &mut block {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    *value = (state >> 33) as i64 % 101 - 50;
                }
                let mut samples = block;
                inverse_dct(&mut samples, precision);
                for (i, &sample) in samples.iter().enumerate() {
                    let centre = f64::from(1 << (precision - 1));
                    let largest = 2.0 * centre - 1.0;
                    let wanted = (exact(&block, i % 8, i / 8) + centre).clamp(0.0, largest);
                    assert!((sample as f64 - wanted).abs() < 0.6, "{sample} {wanted}");
                }
            }
        }
    }

    #[test]
    fn damaged_huffman_tables_are_refused() {
        let counts = |values: &[u8]| {
            let mut counts = [0; 16];
            counts[..values.len()].copy_from_slice(values);
            counts
        };
        assert!(Huffman::new(&counts(&[1, 1, 2]), &[1, 2, 3, 4]).is_some());
        assert!(
            Huffman::new(&counts(&[3]), &[1, 2, 3]).is_none(),
            "over-full"
        );
        assert!(Huffman::new(&counts(&[1, 1, 1]), &[1, 2]).is_none(), "cut");
        assert!(Huffman::new(&[255; 16], &[0; 4096]).is_none());
    }
}
