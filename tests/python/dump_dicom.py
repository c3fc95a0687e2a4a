"""Decodes DICOM files with pydicom and all its plugins and dumps the stored values, for spinectl's reader to be compared with.

    dump_dicom.py [--made-only] OUT

writes OUT/index.tsv, one line an image, and next to it the values as little-endian int64. Images are the files that the
packages pydicom and pydicom-data ship, and variants made here of one synthetic slice. Columns: path, kind (shipped or
made), transfer syntax, monochrome (1 or 0), lossy (1 or 0), hu (file of expected HU as int16, or -), values (file, or -
where pydicom does not decode), and why not.
"""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_rescale, pixel_array
from pydicom.sequence import Sequence

warnings.simplefilter("ignore")

LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"}
LOSSY_CODES = (".50", ".51", ".81", ".91", ".203")
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
SIDE = 64


def shipped():
    """Every file of the two packages, in a fixed order."""
    import data_store

    for folder in (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent):
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py")


def imagecodecs_jpeg12(ds):
    """12-bit JPEG, which none of pydicom's plugins decodes."""
    import imagecodecs

    frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)))
    return np.stack([imagecodecs.jpeg8_decode(frame) for frame in frames])


def decode(path):
    """(data set, values or None, why not)."""
    try:
        ds = pydicom.dcmread(path)
    except Exception as error:
        return None, None, f"not DICOM: {type(error).__name__}"
    if "PixelData" not in ds:
        return ds, None, "no PixelData"
    try:
        return ds, pixel_array(ds), ""
    except Exception as error:
        if ds.file_meta.get("TransferSyntaxUID") == "1.2.840.10008.1.2.4.51":
            return ds, imagecodecs_jpeg12(ds), ""
        return ds, None, " ".join(str(error).split())[:120]


# --- variants -----------------------------------------------------------------------------------------------------------


def slice_values(low, high, frame=0):
    """A slice with smooth parts, flat parts, noise and both ends of its range, from `low` to `high`."""
    rng = np.random.default_rng(7 + frame)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    span = high - low
    image = low + span * (0.5 + 0.4 * np.sin(x / 9.0 + frame) * np.cos(y / 7.0)) + rng.normal(0, span / 200, (SIDE, SIDE))
    image[10:20, 12:40] = low
    image[30:34] = high
    return np.clip(np.rint(image), low, high).astype(np.int64)


def data_set(transfer_syntax, rows=SIDE, cols=SIDE):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = transfer_syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.9.7777.6.1"
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.9.7777.6"
    ds.SeriesInstanceUID = "1.2.826.0.1.3680043.9.7777.6.2"
    ds.Modality = "CT"
    ds.ImagePositionPatient = [-10, -20, 30]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [0.5, 0.25]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = rows, cols
    ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
    return ds


def describe(ds, allocated, stored, signed, high=None):
    ds.BitsAllocated, ds.BitsStored = allocated, stored
    ds.HighBit = stored - 1 if high is None else high
    ds.PixelRepresentation = int(signed)


def ends(stored, signed):
    return (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)


def words(values, allocated, big_endian=False):
    kind = np.dtype(f"{'>' if big_endian else '<'}u{allocated // 8}")
    data = (values & ((1 << allocated) - 1)).astype(kind).tobytes()
    return data + b"\0" * (len(data) % 2)


def native(out):
    """Yields (path, values, HU or None)."""
    for syntax, name in (
        ("1.2.840.10008.1.2", "implicit"),
        (EXPLICIT, "explicit"),
        (BIG_ENDIAN, "big"),
        ("1.2.840.10008.1.2.1.99", "deflated"),
    ):
        for allocated, stored in ((8, 8), (8, 7), (16, 8), (16, 12), (16, 13), (16, 16), (32, 20), (32, 32)):
            for signed in (False, True):
                ds = data_set(syntax)
                describe(ds, allocated, stored, signed)
                values = slice_values(*ends(stored, signed))
                # Bits above the stored ones hold something else.
                junk = (0xA5A5A5A5 << stored) if stored < allocated else 0
                held = (values & ((1 << stored) - 1)) | (junk & ((1 << allocated) - 1))
                ds.PixelData = words(held, allocated, syntax == BIG_ENDIAN)
                ds["PixelData"].VR = "OW" if allocated > 8 else "OB"
                path = out / f"{name}_{allocated}_{stored}_{'s' if signed else 'u'}.dcm"
                ds.save_as(path, enforce_file_format=True)
                yield path, values, None
    for stored, high, signed in ((12, 15, False), (12, 15, True), (10, 12, True)):
        ds = data_set(EXPLICIT)
        describe(ds, 16, stored, signed, high)
        values = slice_values(*ends(stored, signed))
        up = high + 1 - stored
        ds.PixelData = words(((values & ((1 << stored) - 1)) << up) | ((1 << up) - 1), 16)
        ds["PixelData"].VR = "OW"
        path = out / f"high_bit_{stored}_{high}_{'s' if signed else 'u'}.dcm"
        ds.save_as(path, enforce_file_format=True)
        yield path, values, None
    # 8 bits as OW in big endian: bytes swapped in pairs, three frames of an odd size.
    ds = data_set(BIG_ENDIAN, 3, 5)
    describe(ds, 8, 8, False)
    ds.NumberOfFrames = 3
    values = np.arange(45, dtype=np.int64).reshape(3, 3, 5) * 5
    ds.PixelData = np.frombuffer(words(values, 8), "<u2").byteswap().tobytes()
    ds["PixelData"].VR = "OW"
    path = out / "big_8_ow.dcm"
    ds.save_as(path, enforce_file_format=True)
    yield path, values, None


def hu_variants(out):
    for name, photometric, signed, intercept, padding, limit, fill in (
        ("plain", "MONOCHROME2", True, -1024, None, None, None),
        ("monochrome1", "MONOCHROME1", True, -1024, None, None, None),
        ("padding_signed", "MONOCHROME2", True, 0, -2000, None, -2000),
        ("padding_range", "MONOCHROME2", True, 0, -3000, -1500, -2000),
        ("padding_high", "MONOCHROME2", False, -1024, 63536, None, 63536),
        ("padding_is_tissue", "MONOCHROME2", True, 0, 0, None, 0),
    ):
        ds = data_set(EXPLICIT)
        describe(ds, 16, 16, signed)
        ds.PhotometricInterpretation = photometric
        ds.RescaleIntercept = str(intercept)
        values = slice_values(0, 3000)
        hu = values + intercept
        if fill is not None:
            values[:8] = fill
            hu[:8] = fill + intercept if name == "padding_is_tissue" else -1000
            ds.add_new(0x00280120, "SS" if signed else "US", padding)
        if limit is not None:
            ds.add_new(0x00280121, "SS", limit)
        ds.PixelData = words(values, 16)
        ds["PixelData"].VR = "OW"
        path = out / f"hu_{name}.dcm"
        ds.save_as(path, enforce_file_format=True)
        yield path, values, hu


def enhanced(out):
    """Five frames in shuffled order, each with its own rescale and place; native and encapsulated in four ways."""
    order = [3, 0, 4, 1, 2]
    values = np.stack([slice_values(0, 4095, frame) for frame in order])
    slopes, intercepts = [1, 2, 0.5, 1, 1], [-1024, -1000, -500, 0, -2048]
    hu = np.stack(
        [np.floor(abs(h) + 0.5) * np.sign(h) for h in (v * s + i for v, s, i in zip(values, slopes, intercepts))]
    )
    for name, syntax in (
        ("native", EXPLICIT),
        ("implicit", "1.2.840.10008.1.2"),
        ("big", BIG_ENDIAN),
        ("rle_basic", "1.2.840.10008.1.2.5"),
        ("rle_extended", "1.2.840.10008.1.2.5"),
        ("jls_no_table", "1.2.840.10008.1.2.4.80"),
        ("jls_split", "1.2.840.10008.1.2.4.80"),
        ("fragments_native", "1.2.840.10008.1.2.1.98"),
    ):
        ds = data_set(syntax)
        describe(ds, 16, 12, False)
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
            del ds[keyword]
        ds.NumberOfFrames = len(order)
        shared = Dataset()
        shared.PlaneOrientationSequence = Sequence([Dataset()])
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PixelMeasuresSequence = Sequence([Dataset()])
        shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.25]
        ds.SharedFunctionalGroupsSequence = Sequence([shared])
        frames = []
        for frame, slope, intercept in zip(order, slopes, intercepts):
            own = Dataset()
            own.PlanePositionSequence = Sequence([Dataset()])
            own.PlanePositionSequence[0].ImagePositionPatient = [-10, -20, 30 - 1.5 * frame]
            own.PixelValueTransformationSequence = Sequence([Dataset()])
            own.PixelValueTransformationSequence[0].RescaleSlope = str(slope)
            own.PixelValueTransformationSequence[0].RescaleIntercept = str(intercept)
            frames.append(own)
        ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
        if name.startswith(("rle", "jls", "fragments")):
            encoded = [encode(value, syntax, 16, 12) for value in values]
            if name == "rle_extended":
                ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(encoded)
            else:
                ds.PixelData = encapsulate(encoded, has_bot=name == "rle_basic", fragments_per_frame=3 if name == "jls_split" else 1)
            ds["PixelData"].VR = "OB"
        else:
            ds.PixelData = words(values, 16, syntax == BIG_ENDIAN)
            ds["PixelData"].VR = "OW"
        path = out / f"enhanced_{name}.dcm"
        ds.save_as(path, enforce_file_format=True)
        yield path, values, hu


def encode(values, syntax, allocated, stored):
    import imagecodecs

    kind = np.uint8 if allocated == 8 else np.uint16
    image = (values & ((1 << stored) - 1)).astype(kind)
    match syntax.removeprefix("1.2.840.10008.1.2."):
        case "5":
            planes = image.astype(kind).byteswap().view(np.uint8).reshape(-1, allocated // 8).T
            rows = [b"".join(pydicom.pixels.encoders.native._encode_row(row) for row in plane.reshape(SIDE, SIDE)) for plane in planes]
            rows = [row + b"\0" * (len(row) % 2) for row in rows]
            offsets = np.zeros(16, "<u4")
            offsets[0] = len(rows)
            offsets[1 : 1 + len(rows)] = 64 + np.cumsum([0] + [len(row) for row in rows[:-1]])
            return offsets.tobytes() + b"".join(rows)
        case "1.98":
            return image.tobytes()
        case "4.50":
            return imagecodecs.jpeg8_encode(image, level=90)
        case "4.51":
            return imagecodecs.jpeg8_encode(image, level=90, bitspersample=stored)
        case "4.57" | "4.70":
            return imagecodecs.ljpeg_encode(image, bitspersample=stored)
        case "4.80":
            return imagecodecs.jpegls_encode(image)
        case "4.81":
            return imagecodecs.jpegls_encode(image, level=3)
        case "4.90":
            return imagecodecs.jpeg2k_encode(image, codecformat="j2k", bitspersample=stored)
        case "4.91":
            return imagecodecs.jpeg2k_encode(image, level=60, codecformat="j2k", bitspersample=stored)
        case "4.201" | "4.202":
            return imagecodecs.htj2k_encode(image, reversible=True)
        case "4.203":
            return imagecodecs.htj2k_encode(image, reversible=False, level=0.002)
    raise ValueError(syntax)


def compressed(out):
    for syntax in ("5", "1.98", "4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.201", "4.202", "4.203"):
        syntax = f"1.2.840.10008.1.2.{syntax}"
        for allocated, stored, signed in ((8, 8, 0), (16, 12, 0), (16, 16, 0), (8, 8, 1), (16, 12, 1), (16, 16, 1)):
            if signed and (syntax.endswith(LOSSY_CODES) or (syntax.endswith(".80") and stored == 12)):
                continue  # JPEG has no signs, and the JPEG-LS encoder at hand writes whole words only.
            if (syntax.endswith(".50") and stored != 8) or (syntax.endswith(".51") and stored == 16):
                continue
            if syntax.endswith((".201", ".202", ".203")) and stored == 12:
                continue  # The encoder at hand writes whole words only.
            ds = data_set(syntax)
            describe(ds, allocated, stored, signed)
            values = slice_values(*ends(stored, signed))
            data = encode(values, syntax, allocated, stored)
            ds.PixelData = encapsulate([data])
            ds["PixelData"].VR = "OB"
            path = out / f"compressed_{syntax[18:].replace('.', '_')}_{stored}_{'s' if signed else 'u'}.dcm"
            ds.save_as(path, enforce_file_format=True)
            if syntax.endswith(LOSSY_CODES):
                # What was encoded does not come back; what pydicom makes of it is the reference.
                _, values, why = decode(path)
                assert values is not None, f"{path}: {why}"
            yield path, values, None


def main(out, made_only):
    out.mkdir(parents=True, exist_ok=True)
    lines = []

    def line(path, kind, ds, values, hu, why):
        name = f"{len(lines):04}"
        files = []
        for suffix, array, dtype in (("hu", hu, "<i2"), ("values", values, "<i8")):
            if array is None:
                files.append("-")
                continue
            files.append(f"{name}.{suffix}")
            np.ascontiguousarray(array).astype(dtype).tofile(out / files[-1])
        syntax = str(ds.file_meta.get("TransferSyntaxUID", "-")) if ds is not None and hasattr(ds, "file_meta") else "-"
        monochrome = ds is not None and str(ds.get("PhotometricInterpretation", "")).startswith("MONOCHROME")
        lines.append("\t".join([str(path), kind, syntax, str(int(monochrome)), str(int(syntax in LOSSY)), *files, why or "-"]))

    for path in [] if made_only else shipped():
        ds, values, why = decode(path)
        hu = None
        if values is not None and ds.get("Modality") == "CT" and "RescaleSlope" in ds:
            hu = np.clip(np.rint(apply_rescale(values, ds)), -32768, 32767)
            if "PixelPaddingValue" in ds:
                # VR US where SS is meant, in some; all of these are below air.
                hu[(values.astype(np.int64) - int(ds.PixelPaddingValue)) % 65536 == 0] = -1000
        line(path, "shipped", ds, values, hu, why)
    made = out / "made"
    made.mkdir(exist_ok=True)
    for variants in (native, hu_variants, enhanced, compressed):
        for path, values, hu in variants(made):
            line(path, "made", pydicom.dcmread(path, stop_before_pixels=True), values, hu, "")
    (out / "index.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[-1]), "--made-only" in sys.argv)
