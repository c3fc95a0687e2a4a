"""Reads a phantom data set with pydicom and nibabel and checks it against its tables and PIPELINE's layout.

    python read_phantom.py DATA_SET_DIR

Prints one line a study and exits 1 at the first fault.
"""

import csv
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom

LABELS = ["patient_overall", "C1", "C2", "C3", "C4", "C5", "C6", "C7"]


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_slices(folder):
    """{n: dataset} of every <n>.dcm."""
    slices = {int(path.stem): pydicom.dcmread(path) for path in folder.glob("*.dcm")}
    assert len(slices) == len(list(folder.iterdir())), f"{folder}: files that are not <n>.dcm"
    return slices


def hounsfield(dataset):
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def check_headers(study, slices):
    first = next(iter(slices.values()))
    for number, dataset in slices.items():
        assert dataset.StudyInstanceUID == study, f"{study}/{number}: StudyInstanceUID"
        assert dataset.SeriesInstanceUID == first.SeriesInstanceUID, f"{study}/{number}: SeriesInstanceUID"
        assert dataset.InstanceNumber == number, f"{study}/{number}: InstanceNumber"
        assert dataset.PixelSpacing == first.PixelSpacing, f"{study}/{number}: PixelSpacing"
        assert list(dataset.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0], f"{study}/{number}: orientation"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID, f"{study}/{number}: SOP UID"
    uids = {dataset.SOPInstanceUID for dataset in slices.values()}
    assert len(uids) == len(slices), f"{study}: SOPInstanceUIDs repeat"


def stack(study, slices):
    """HU in the order of n, (slices, rows, columns), and whether z runs downwards in that order."""
    ordered = [slices[number] for number in sorted(slices)]
    heights = np.array([float(dataset.ImagePositionPatient[2]) for dataset in ordered])
    steps = np.diff(heights)
    assert (steps < 0).all() or (steps > 0).all(), f"{study}: z is not monotonic in n"
    assert np.allclose(steps, steps[0], atol=1e-3), f"{study}: slices are not evenly spaced"
    hu = np.stack([hounsfield(dataset) for dataset in ordered])
    assert -1024 <= hu.min() < -950 and 900 < hu.max() <= 3071, f"{study}: HU from {hu.min()} to {hu.max()}"
    return hu, bool(steps[0] < 0)


def read_segmentation(path, z_runs_down):
    """Labels (slices, rows, columns) in the order of n: flip y; flip z too where z runs downwards; transpose."""
    image = nibabel.load(path)
    assert image.affine[2, 2] > 0, f"{path}: z runs towards the head on disk"
    labels = np.asarray(image.dataobj)[:, ::-1, :]
    if z_runs_down:
        labels = labels[:, :, ::-1]
    return labels.transpose(2, 1, 0), image


def check_affine(study, image, slices):
    """The NIfTI affine (RAS) puts voxels where DICOM (LPS) says they are."""
    lowest = min(slices.values(), key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    x, y, z = (float(value) for value in lowest.ImagePositionPatient)
    last_row = lowest.Rows - 1
    expected = [-x, -(y + last_row * float(lowest.PixelSpacing[0])), z]
    found = nibabel.affines.apply_affine(image.affine, [0, 0, 0])
    assert np.allclose(found, expected, atol=1e-2), f"{study}: NIfTI origin {found} instead of {expected}"


def check_segmentation(study, path, slices, hu, z_runs_down):
    labels, image = read_segmentation(path, z_runs_down)
    assert labels.shape == hu.shape, f"{study}: segmentation {labels.shape} of a study {hu.shape}"
    check_affine(study, image, slices)
    assert set(range(1, 8)) <= set(np.unique(labels)) <= set(range(9)), f"{study}: labels {np.unique(labels)}"
    inside, outside = hu[labels > 0].mean(), hu[labels == 0].mean()
    assert inside > 450 and outside < 0, f"{study}: {inside:.0f} HU inside the labels, {outside:.0f} outside"
    # Bone that is mirrored would pass on the mean of a large label; each vertebra has to fit.
    for vertebra in range(1, 8):
        assert hu[labels == vertebra].mean() > 400, f"{study}: C{vertebra} does not lie on bone"
        assert (hu[labels == vertebra] < 200).mean() < 0.1, f"{study}: C{vertebra} covers soft tissue"
    middles = [np.argwhere(labels == vertebra)[:, 0].mean() for vertebra in range(1, 8)]
    downwards = np.diff(middles) > 0
    assert (downwards == z_runs_down).all(), f"{study}: vertebrae are not in order: {middles}"
    box = np.argwhere(((labels > 0) & (labels < 8)).any(axis=0))
    extent = np.ptp(box, axis=0) / labels.shape[1:]
    assert (0.2 < extent).all() and (extent < 0.55).all(), f"{study}: vertebrae span {extent} of the image"


def check_boxes(study, boxes, slices, labels):
    assert not boxes or labels["patient_overall"] == "1", f"{study}: boxes without a fracture"
    for box in boxes:
        number = int(box["slice_number"])
        assert number in slices, f"{study}: a box in slice {number}, which does not exist"
        x, y, width, height = (float(box[key]) for key in ("x", "y", "width", "height"))
        side = slices[number].Columns
        assert 0 <= x and x + width <= side and 0 <= y and y + height <= side, f"{study}: {box}"
        assert width > 2 and height > 2, f"{study}: {box}"


def main():
    root = Path(sys.argv[1])
    rows = read_table(root / "train.csv")
    boxes = read_table(root / "train_bounding_boxes.csv")
    assert list(rows[0]) == ["StudyInstanceUID", *LABELS], f"train.csv has the columns {list(rows[0])}"
    box_columns = ["StudyInstanceUID", "x", "y", "width", "height", "slice_number"]
    assert not boxes or list(boxes[0]) == box_columns, f"train_bounding_boxes.csv has the columns {list(boxes[0])}"
    studies = {row["StudyInstanceUID"] for row in rows}
    assert studies == {path.name for path in (root / "train_images").iterdir()}, "train.csv and train_images differ"
    directions = set()
    for row in rows:
        study = row["StudyInstanceUID"]
        assert row["patient_overall"] == max(row[vertebra] for vertebra in LABELS[1:]), f"{study}: labels disagree"
        slices = read_slices(root / "train_images" / study)
        check_headers(study, slices)
        hu, z_runs_down = stack(study, slices)
        directions.add(z_runs_down)
        segmentation = root / "segmentations" / f"{study}.nii"
        if segmentation.exists():
            check_segmentation(study, segmentation, slices, hu, z_runs_down)
        check_boxes(study, [box for box in boxes if box["StudyInstanceUID"] == study], slices, row)
        print(study, len(slices), "down" if z_runs_down else "up", "segmented" if segmentation.exists() else "")
    assert directions == {True, False}, "studies run one way only"


if __name__ == "__main__":
    main()
