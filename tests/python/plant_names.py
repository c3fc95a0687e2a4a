"""Writes into every DICOM file below a folder what no record of a run may repeat: names, numbers, dates, places.

Usage: plant_names.py FOLDER; prints what it planted, one a line.
"""

import sys
from pathlib import Path

import pydicom

PLANTED = {
    "PatientName": "Quillfeather^Zebulon",
    "PatientID": "MRN-7716250943",
    "PatientBirthDate": "19470823",
    "OtherPatientNames": "Quill^Zeb",
    "PatientAddress": "17 Marrowbone Hollow",
    "InstitutionName": "Hospital of Nowhere",
    "ReferringPhysicianName": "Oxenthwaite^Ada",
    "AccessionNumber": "ACC-5530187",
    "StudyDescription": "Fell off a penny-farthing",
}

for file in sorted(Path(sys.argv[1]).rglob("*.dcm")):
    slice_ = pydicom.dcmread(file)
    for keyword, value in PLANTED.items():
        setattr(slice_, keyword, value)
    slice_.save_as(file)
print("\n".join(PLANTED.values()))
