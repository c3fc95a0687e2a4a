"""Writes what nibabel reads of its own test files, and of generated files of every type, for the NIfTI reader's tests.

    python nibabel_values.py OUT_DIR [STUDY.nii.gz ...]

OUT_DIR/index.tsv has a line for each file: its path, the shape (i, j, k) or the reason why it is no volume, the path of its
values (float64, little endian, i fastest) and the affine's sixteen numbers. Each STUDY goes, turned head first by
`as_closest_canonical` and rounded, to OUT_DIR/<its name>.study: int16, (slices, rows, columns).
"""

import itertools
import sys
from pathlib import Path

import nibabel
import numpy as np

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
ROTATIONS = [(0.0, 0.0, 0.0), (0.1, -0.3, 0.2), (0.70710677, 0.0, 0.70710677), (0.0, 0.0, 1.0)]


def shipped():
    """Every file with a NIfTI header that comes with nibabel."""
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    return sorted(path for path in folder.iterdir() if path.name.endswith((".nii", ".nii.gz", ".hdr")))


def generated(out):
    """Each type in each byte order and version, scaled and not, placed by sform and by qform, compressed and not."""
    random = np.random.default_rng(5)
    cases = itertools.product(TYPES, "<>", (nibabel.Nifti1Header, nibabel.Nifti2Header), (False, True))
    for number, (kind, order, version, scaled) in enumerate(cases):
        dtype = np.dtype(order + kind)
        shape = tuple(random.integers(1, 7, 3))
        if dtype.kind == "f":
            stored = random.normal(0, 1000, shape).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            stored = random.integers(limits.min, limits.max, shape, dtype=dtype.newbyteorder("="), endpoint=True)
        header = version(endianness=order)
        header.set_data_dtype(dtype)
        header.set_data_shape(shape)
        header["pixdim"][1:4] = random.uniform(0.3, 3, 3)
        header["pixdim"][0] = 1 if number % 3 else -1
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = ROTATIONS[number % len(ROTATIONS)]
        header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = random.uniform(-200, 200, 3)
        header["qform_code"] = 1
        if number % 2:
            header["sform_code"] = 1
            for row in "xyz":
                header["srow_" + row] = random.uniform(-2, 2, 4)
        if scaled:
            header["scl_slope"], header["scl_inter"] = random.uniform(0.1, 2), random.uniform(-1024, 100)
        start = 352 if version is nibabel.Nifti1Header else 544
        header["vox_offset"] = start
        header["magic"] = b"n+1" if version is nibabel.Nifti1Header else b"n+2\0\r\n\x1a\n"
        body = header.binaryblock + b"\0" * 4 + stored.astype(dtype).tobytes(order="F")
        path = out / f"generated-{number}.nii{'.gz' if number % 5 == 0 else ''}"
        with nibabel.openers.Opener(path, "wb") as file:
            file.write(body)
        yield path


def line(number, path, out):
    try:
        image = nibabel.load(path)
        values = image.get_fdata()
    except Exception as error:  # noqa: BLE001: what nibabel does not read is not to be compared
        return [path, f"nibabel: {type(error).__name__}", "", ""]
    single = isinstance(image, nibabel.Nifti1Image) and not isinstance(image, nibabel.Cifti2Image)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if not single or values.ndim != 3:
        return [path, f"{type(image).__name__} of {values.ndim} dimensions", "", ""]
    stored = out / f"{number}.f64"
    stored.write_bytes(values.astype("<f8").tobytes(order="F"))
    return [path, " ".join(map(str, values.shape)), stored, " ".join(repr(float(v)) for v in image.affine.ravel())]


def write_study(path, out):
    """RAS, every axis turned round: columns to the left, rows to the back, slices to the feet."""
    values = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()[::-1, ::-1, ::-1]
    rounded = np.trunc(values + np.copysign(0.5, values)).clip(-32768, 32767)
    (out / f"{path.name}.study").write_bytes(rounded.transpose(2, 1, 0).astype("<i2").tobytes())


def main():
    out = Path(sys.argv[1])
    for study in sys.argv[2:]:
        write_study(Path(study), out)
    files = shipped() + list(generated(out))
    rows = (line(number, path, out) for number, path in enumerate(files))
    (out / "index.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


if __name__ == "__main__":
    main()
