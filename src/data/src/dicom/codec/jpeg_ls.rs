//! JPEG-LS, lossless and near-lossless, one component (ISO/IEC 14495-1 = ITU-T T.87; the names are its).
//!
//! Our own because the one crate that decodes it, charls, needs CMake and a C++ compiler.

/// Run lengths by RUNindex: 2 to the power of these (A.2.1).
const J: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];
/// Above what any valid code maps an error to, and low enough for the arithmetic on damaged ones.
const LARGEST_MAPPED: u32 = 1 << 17;
/// The contexts of regular mode; two of run interruption follow.
const REGULAR: usize = 365;

/// The samples of a codestream's image, in rows; or what is wrong, as the end of a sentence that begins with "PixelData".
pub(crate) fn decode(codestream: &[u8]) -> Result<Vec<u16>, String> {
    let mut frame = None;
    let mut preset = [0; 5];
    let mut rest = codestream.get(2..).unwrap_or_default();
    loop {
        let [0xFF, marker, behind @ ..] = rest else {
            return Err("holds no JPEG-LS marker where one should be".into());
        };
        if *marker == 0xFF {
            rest = &rest[1..];
            continue;
        }
        let length = behind
            .first_chunk()
            .map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        let segment = behind.get(2..length).ok_or("ends in a JPEG-LS header")?;
        match (*marker, segment) {
            (0xF7, _) if frame.is_some() => return Err("has two JPEG-LS frame headers".into()),
            (0xF7, [precision @ 2..=16, y0, y1, x0, x1, 1, ..]) => {
                let [rows, cols] = [[*y0, *y1], [*x0, *x1]].map(u16::from_be_bytes);
                frame = Some((u32::from(*precision), usize::from(rows), usize::from(cols)));
            }
            // MAXVAL, T1, T2, T3, RESET.
            (0xF8, [1, values @ ..]) if values.len() == 10 => {
                for (value, bytes) in preset.iter_mut().zip(values.as_chunks::<2>().0) {
                    *value = i32::from(u16::from_be_bytes(*bytes));
                }
            }
            (0xF8, _) => return Err("is JPEG-LS with mapping tables, which are not read".into()),
            (0xDD, interval) if interval.iter().any(|&byte| byte != 0) => {
                return Err("is JPEG-LS with restart intervals, which are not read".into());
            }
            // One component, its table, NEAR, no interleaving, point transform.
            (0xDA, [1, _, 0, near, 0, shift @ 0..=15]) => {
                let (precision, rows, cols) = frame.ok_or("has no JPEG-LS frame header")?;
                let parameters = Parameters::new(precision, i32::from(*near), preset)?;
                let data = behind.get(length..).unwrap_or_default();
                let mut samples = Decoder::new(parameters, data).scan(rows, cols)?;
                samples.iter_mut().for_each(|sample| *sample <<= shift);
                return Ok(samples);
            }
            (0xF7 | 0xDA, _) => {
                return Err("is JPEG-LS of a kind that is not read: not one component".into());
            }
            _ => {}
        }
        rest = behind.get(length..).unwrap_or_default();
    }
}

/// What a scan is coded with (A.2, C.2.4.1.1).
struct Parameters {
    maxval: i32,
    near: i32,
    t1: i32,
    t2: i32,
    t3: i32,
    reset: i32,
    range: i32,
    /// Bits of a mapped error.
    qbpp: u32,
    /// Most bits of a Golomb code.
    limit: u32,
}

impl Parameters {
    /// `preset` holds MAXVAL, T1, T2, T3 and RESET, 0 for the default.
    fn new(precision: u32, near: i32, preset: [i32; 5]) -> Result<Self, String> {
        let or = |value: i32, default: i32| if value == 0 { default } else { value };
        let [maxval, t1, t2, t3, reset] = preset;
        let maxval = or(maxval, (1 << precision) - 1);
        if maxval >= 1 << precision || near > (maxval / 2).min(255) {
            return Err("has JPEG-LS parameters that contradict each other".into());
        }
        let clamp = |value: i32, least: i32| match value > maxval || value < least {
            true => least,
            false => value,
        };
        let (d1, d2, d3) = if maxval >= 128 {
            let factor = (maxval.min(4095) + 128) / 256;
            (
                factor + 2 + 3 * near,
                factor * 4 + 3 + 5 * near,
                factor * 17 + 4 + 7 * near,
            )
        } else {
            let factor = 256 / (maxval + 1);
            (
                2.max(3 / factor + 3 * near),
                3.max(7 / factor + 5 * near),
                4.max(21 / factor + 7 * near),
            )
        };
        let t1 = or(t1, clamp(d1, near + 1));
        let t2 = or(t2, clamp(d2, t1));
        let t3 = or(t3, clamp(d3, t2));
        let range = match near {
            0 => maxval + 1,
            _ => (maxval + 2 * near) / (2 * near + 1) + 1,
        };
        let bits = |values: i32| 32 - ((values - 1).max(0) as u32).leading_zeros();
        let bpp = bits(maxval + 1).max(2);
        Ok(Self {
            maxval,
            near,
            t1,
            t2,
            t3,
            reset: or(reset, 64),
            range,
            qbpp: bits(range),
            limit: 2 * (bpp + bpp.max(8)),
        })
    }

    /// The region of a local gradient (A.3.3).
    fn quantize(&self, d: i32) -> i32 {
        let region = match d.abs() {
            d if d <= self.near => 0,
            d if d < self.t1 => 1,
            d if d < self.t2 => 2,
            d if d < self.t3 => 3,
            _ => 4,
        };
        region * d.signum()
    }

    /// The sample for a prediction and its error (A.4.5, A.5.3).
    fn reconstruct(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut sample = prediction + error * step;
        if sample < -self.near {
            sample += self.range * step;
        } else if sample > self.maxval + self.near {
            sample -= self.range * step;
        }
        sample.clamp(0, self.maxval)
    }
}

/// What has been learnt in one context (A.2.1).
#[derive(Clone, Copy)]
struct Context {
    a: i32,
    b: i32,
    c: i32,
    n: i32,
    /// Nn: negative errors, in run interruption.
    negative: i32,
}

struct Decoder<'a> {
    parameters: Parameters,
    contexts: Vec<Context>,
    run_index: usize,
    bits: Bits<'a>,
}

impl<'a> Decoder<'a> {
    fn new(parameters: Parameters, data: &'a [u8]) -> Self {
        let context = Context {
            a: 2.max((parameters.range + 32) >> 6),
            b: 0,
            c: 0,
            n: 1,
            negative: 0,
        };
        Self {
            parameters,
            contexts: vec![context; REGULAR + 2],
            run_index: 0,
            bits: Bits::new(data),
        }
    }

    fn scan(mut self, rows: usize, cols: usize) -> Result<Vec<u16>, String> {
        let mut samples = Vec::with_capacity(rows * cols);
        // The line above and this one, with a sample to the left and one to the right of the image (A.2.1).
        let mut above = vec![0_i32; cols + 2];
        let mut line = vec![0_i32; cols + 2];
        for _ in 0..rows {
            above[cols + 1] = above[cols];
            line[0] = above[1];
            self.line(&above, &mut line);
            if self.bits.overrun() {
                return Err("is cut short: its JPEG-LS data end before the image does".into());
            }
            samples.extend(line[1..=cols].iter().map(|&sample| sample as u16));
            std::mem::swap(&mut above, &mut line);
        }
        Ok(samples)
    }

    /// Decodes a line; index 1 is the first pixel.
    fn line(&mut self, above: &[i32], line: &mut [i32]) {
        let end = line.len() - 1;
        let mut x = 1;
        while x < end {
            let (ra, rb, rc, rd) = (line[x - 1], above[x], above[x - 1], above[x + 1]);
            let gradients =
                [rd - rb, rb - rc, rc - ra].map(|gradient| self.parameters.quantize(gradient));
            if gradients == [0; 3] {
                x = self.run(above, line, x, end);
            } else {
                line[x] = self.regular([ra, rb, rc], gradients);
                x += 1;
            }
        }
    }

    fn regular(&mut self, [ra, rb, rc]: [i32; 3], [q1, q2, q3]: [i32; 3]) -> i32 {
        let q = 81 * q1 + 9 * q2 + q3;
        let sign = q.signum();
        let Self {
            parameters, bits, ..
        } = self;
        let context = &mut self.contexts[q.unsigned_abs() as usize];
        let edge = if rc >= ra.max(rb) {
            ra.min(rb)
        } else if rc <= ra.min(rb) {
            ra.max(rb)
        } else {
            ra + rb - rc
        };
        let prediction = (edge + sign * context.c).clamp(0, parameters.maxval);

        let k = golomb_parameter(context.n, context.a);
        let mapped = bits.golomb(k, parameters.limit, parameters.qbpp);
        // A.5.2.
        let error = match parameters.near == 0 && k == 0 && 2 * context.b <= -context.n {
            true if mapped % 2 == 1 => (mapped - 1) / 2,
            true => -mapped / 2 - 1,
            false if mapped % 2 == 0 => mapped / 2,
            false => -(mapped + 1) / 2,
        };

        // A.6.
        context.b += error * (2 * parameters.near + 1);
        context.a = context.a.saturating_add(error.abs());
        if context.n == parameters.reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        if context.b <= -context.n {
            context.b = (context.b + context.n).max(1 - context.n);
            context.c = (context.c - 1).max(-128);
        } else if context.b > 0 {
            context.b = (context.b - context.n).min(0);
            context.c = (context.c + 1).min(127);
        }
        parameters.reconstruct(prediction, sign * error)
    }

    /// Decodes a run and the sample that ends it (A.7); returns where the line goes on.
    fn run(&mut self, above: &[i32], line: &mut [i32], start: usize, end: usize) -> usize {
        let ra = line[start - 1];
        let mut x = start;
        while self.bits.take(1) == 1 {
            let length = 1 << J[self.run_index];
            let held = length.min(end - x);
            line[x..x + held].fill(ra);
            x += held;
            if held == length {
                self.run_index = (self.run_index + 1).min(J.len() - 1);
            }
            if x == end {
                return end;
            }
        }
        let left = (self.bits.take(J[self.run_index]) as usize).min(end - x);
        line[x..x + left].fill(ra);
        x += left;
        if x == end {
            return end;
        }

        let rb = above[x];
        let Self {
            parameters, bits, ..
        } = self;
        let same = (ra - rb).abs() <= parameters.near;
        let kind = i32::from(same);
        let context = &mut self.contexts[REGULAR + usize::from(same)];
        let k = golomb_parameter(context.n, context.a + if same { context.n >> 1 } else { 0 });
        let mapped = bits.golomb(k, parameters.limit - J[self.run_index] - 1, parameters.qbpp);
        let odd = (mapped + kind) % 2 == 1;
        let size = (mapped + kind + i32::from(odd)) / 2;
        let error = match (k != 0 || 2 * context.negative >= context.n) == odd {
            true => -size,
            false => size,
        };
        if error < 0 {
            context.negative += 1;
        }
        context.a = context.a.saturating_add((mapped + 1 - kind) >> 1);
        if context.n == parameters.reset {
            context.a >>= 1;
            context.n >>= 1;
            context.negative >>= 1;
        }
        context.n += 1;
        line[x] = match same {
            true => parameters.reconstruct(ra, error),
            false if ra > rb => parameters.reconstruct(rb, -error),
            false => parameters.reconstruct(rb, error),
        };
        self.run_index = self.run_index.saturating_sub(1);
        x + 1
    }
}

/// k (A.5.1).
fn golomb_parameter(n: i32, a: i32) -> u32 {
    let mut k = 0;
    while k < 24 && i64::from(n) << k < i64::from(a) {
        k += 1;
    }
    k
}

/// The bits of a scan, the highest first; after a byte 0xFF a bit 0 is stuffed (A.1), and another is a marker's.
struct Bits<'a> {
    data: &'a [u8],
    after_ff: bool,
    buffer: u64,
    held: u32,
    /// Zeros in `buffer` that stand for bits behind the end.
    made_up: u32,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            after_ff: false,
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
            let (byte, bits) = match self.data {
                [byte, rest @ ..] if !(self.after_ff && *byte >= 0x80) => {
                    self.data = rest;
                    let bits = if self.after_ff { 7 } else { 8 };
                    self.after_ff = *byte == 0xFF;
                    (*byte, bits)
                }
                _ => {
                    self.data = &[];
                    self.made_up = self.made_up.saturating_add(8);
                    (0, 8)
                }
            };
            self.buffer = self.buffer << bits | u64::from(byte);
            self.held += bits;
        }
    }

    /// The next `count` bits, at most 32.
    fn take(&mut self, count: u32) -> u32 {
        if self.held < count {
            self.fill();
        }
        self.held -= count;
        ((self.buffer >> self.held) & ((1 << count) - 1)) as u32
    }

    /// A code of limited length (A.5.3).
    fn golomb(&mut self, k: u32, limit: u32, qbpp: u32) -> i32 {
        let longest = limit.saturating_sub(qbpp + 1);
        let mut zeros = 0;
        loop {
            if self.held < 32 {
                self.fill();
            }
            // The bits that are held, at the top.
            let leading = (self.buffer << (64 - self.held))
                .leading_zeros()
                .min(self.held);
            zeros += leading;
            self.held -= leading;
            if self.held > 0 || zeros > longest {
                break;
            }
        }
        if self.held > 0 {
            // The 1 behind the zeros.
            self.held -= 1;
        }
        let mapped = match zeros < longest {
            true => zeros << k | self.take(k),
            false => self.take(qbpp) + 1,
        };
        mapped.min(LARGEST_MAPPED) as i32
    }
}
