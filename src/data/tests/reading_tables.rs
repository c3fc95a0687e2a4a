//! Tables: every row type reads back as written, the same rows give the same bytes, and mistakes are located.

use std::fmt::Debug;
use std::fs;

use data::csv_table::Row;
use data::stage_tables::{LocatedSlice, Origin, SliceScores};
use data::tables::*;
use data::{DataError, StudyUid};

fn study(n: u32) -> StudyUid {
    StudyUid::new(&format!("1.2.826.0.1.3680043.{n}")).unwrap()
}

fn round_trip<R: Row + PartialEq + Debug>(rows: &[R], text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    write_table(&path, rows).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(read_table::<R>(&path).unwrap(), rows);
}

#[test]
fn every_table_reads_back() {
    round_trip(
        &[StudyLabels {
            study: study(1),
            patient_overall: 1,
            vertebrae: [0, 1, 0, 0, 0, 0, 0],
            patient: None,
        }],
        "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n1.2.826.0.1.3680043.1,1,0,1,0,0,0,0,0\n",
    );
    let fracture = |slice_number| FractureBox {
        study: study(1),
        x: 219.27715,
        y: 216.71419,
        width: 17.30440,
        height: 30.0,
        slice_number,
    };
    round_trip(
        &[fracture(133), fracture(133)],
        "StudyInstanceUID,x,y,width,height,slice_number\n\
         1.2.826.0.1.3680043.1,219.27715,216.71419,17.3044,30,133\n\
         1.2.826.0.1.3680043.1,219.27715,216.71419,17.3044,30,133\n",
    );
    round_trip(
        &[
            StudyFold {
                study: study(2),
                fold: 4,
            },
            StudyFold {
                study: study(1),
                fold: 0,
            },
        ],
        "StudyInstanceUID,fold\n1.2.826.0.1.3680043.2,4\n1.2.826.0.1.3680043.1,0\n",
    );
    round_trip(
        &[StudyBox {
            study: study(1),
            x0: 0.0,
            y0: 1.0 / 3.0,
            x1: 0.75,
            y1: 1.0,
            slice_from: 3,
            slice_to: 80,
            slice_max: 99,
            fold: 2,
        }],
        "StudyInstanceUID,x0,y0,x1,y1,slice_from,slice_to,slice_max,fold\n\
         1.2.826.0.1.3680043.1,0,0.33333334,0.75,1,3,80,99,2\n",
    );
    round_trip(
        &[SliceLabels {
            study: study(1),
            slice_number: 7,
            ratio: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0],
            fracture: [1e-7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            fold: 1,
        }],
        "StudyInstanceUID,slice_number,C1_pred,C2_pred,C3_pred,C4_pred,C5_pred,C6_pred,C7_pred,\
         C1_frac,C2_frac,C3_frac,C4_frac,C5_frac,C6_frac,C7_frac,fold\n\
         1.2.826.0.1.3680043.1,7,0,0.1,0.2,0.3,0.4,0.5,1,0.0000001,0,0,0,0,0,0,1\n",
    );
    round_trip(
        &[
            Prediction {
                study: study(1),
                label: 0,
                fractured: 0.1 + 0.2,
            },
            Prediction {
                study: study(1),
                label: 7,
                fractured: 1.0,
            },
        ],
        "row_id,fractured\n1.2.826.0.1.3680043.1_patient_overall,0.30000000000000004\n1.2.826.0.1.3680043.1_C7,1\n",
    );
    round_trip(
        &[StudyPrediction {
            study: study(1),
            fold: 3,
            probabilities: [0.5; 8],
        }],
        "StudyInstanceUID,fold,patient_overall,C1,C2,C3,C4,C5,C6,C7\n\
         1.2.826.0.1.3680043.1,3,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5\n",
    );
    round_trip(
        &[LocatedSlice {
            study: study(1),
            slice_number: 4,
            bounds: [0.25, -0.5, 0.75, 1.5],
            has_box: 0.5,
            fold: Some(2),
        }],
        "StudyInstanceUID,slice_number,x0,y0,x1,y1,has_box,fold\n\
         1.2.826.0.1.3680043.1,4,0.25,-0.5,0.75,1.5,0.5,2\n",
    );
    round_trip(
        &[SliceScores {
            study: study(1),
            slice_number: 4,
            scores: [0.5; 7],
            fold: None,
        }],
        "StudyInstanceUID,slice_number,C1,C2,C3,C4,C5,C6,C7,fold\n\
         1.2.826.0.1.3680043.1,4,0.5,0.5,0.5,0.5,0.5,0.5,0.5,\n",
    );
    round_trip::<StudyFold>(&[], "StudyInstanceUID,fold\n");
}

fn read<R: Row + Debug>(text: &str) -> data::Result<Vec<R>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    fs::write(&path, text).unwrap();
    read_table(&path)
}

#[test]
fn tables_of_earlier_versions_state_no_fold() {
    let header = "StudyInstanceUID,slice_number,C1,C2,C3,C4,C5,C6,C7";
    let scores = "0,0,0,0,0,0,0";
    let rows: Vec<SliceScores> = read(&format!("{header}\n1.2.3,1,{scores}\n")).unwrap();
    assert_eq!(rows[0].fold, None);
    let rows: Vec<Origin> = read(&format!("{header},fold\n1.2.3,1,{scores},3\n")).unwrap();
    assert_eq!(rows[0].fold, Some(3));
    let error = read::<Origin>(&format!("{header},fold\n1.2.3,1,{scores},-1\n")).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("line 2, column fold: \"-1\""), "{error}");
    let error = read::<SliceScores>("StudyInstanceUID,slice_number,fold\n").unwrap_err();
    assert!(error.to_string().contains("no column C1"), "{error}");
}

#[test]
fn columns_may_stand_in_any_order_among_others() {
    let rows: Vec<StudyFold> =
        read("\u{feff}age, fold ,StudyInstanceUID\r\n3,1, 1.2.3\r\n").unwrap();
    assert_eq!(
        rows,
        [StudyFold {
            study: StudyUid::new("1.2.3").unwrap(),
            fold: 1
        }]
    );
}

#[test]
fn mistakes_are_located() {
    let message = |text| read::<StudyFold>(text).unwrap_err().to_string();
    let missing = message("StudyInstanceUID,split\n1.2.3,0\n");
    assert!(
        missing.contains("table.csv has no column fold"),
        "{missing}"
    );
    assert!(missing.contains("StudyInstanceUID,split"), "{missing}");

    let number = message("StudyInstanceUID,fold\n1.2.3,0\n1.2.4,-1\n");
    assert!(
        number.contains("line 3, column fold: \"-1\" is not a whole number"),
        "{number}"
    );

    let uid = message("StudyInstanceUID,fold\n../../etc,0\n");
    assert!(uid.contains("line 2, column StudyInstanceUID"), "{uid}");

    let twice = message("StudyInstanceUID,fold\n1.2.3,0\n1.2.4,0\n1.2.3,1\n");
    assert!(
        twice.contains("line 4: 1.2.3 was already on line 2"),
        "{twice}"
    );

    let short = message("StudyInstanceUID,fold\n1.2.3\n");
    assert!(
        short.contains("line: 2") && short.contains("not well-formed"),
        "{short}"
    );

    let empty = message("");
    assert!(empty.contains("has no column StudyInstanceUID"), "{empty}");
}

#[test]
fn values_out_of_range_are_refused() {
    let boxes = "StudyInstanceUID,x0,y0,x1,y1,slice_from,slice_to,slice_max,fold\n";
    for (row, column) in [
        ("1.2,-0.1,0,1,1,0,5,9,0", "x0"),
        ("1.2,0.5,0,0.5,1,0,5,9,0", "x1"),
        ("1.2,0,0,1,1.5,0,5,9,0", "y1"),
        ("1.2,0,NaN,1,1,0,5,9,0", "y0"),
        ("1.2,0,0,1,1,6,5,9,0", "slice_to"),
        ("1.2,0,0,1,1,0,5,4,0", "slice_max"),
    ] {
        let error = read::<StudyBox>(&format!("{boxes}{row}\n")).unwrap_err();
        let DataError::TableValue {
            column: found,
            line: 2,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(found, column, "{error}");
    }
    assert!(
        read::<StudyLabels>(
            "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n1.2,2,0,0,0,0,0,0,0\n"
        )
        .is_err()
    );
    for row in ["1.2_C8,0.5", "1.2,0.5", "../x_C1,0.5", "1.2_C1,inf"] {
        assert!(
            read::<Prediction>(&format!("row_id,fractured\n{row}\n")).is_err(),
            "{row}"
        );
    }
    assert!(read::<Prediction>("row_id,fractured\n1.2_C1,0.5\n1.2_C1,0.5\n").is_err());
}

#[test]
fn a_label_is_the_end_of_a_row_id() {
    let rows = "row_id,fractured\na_b_patient_overall,0.5\na_b_C7,0.25\nC1_C1,0\n";
    let rows = read::<Prediction>(rows).unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.study.as_str(), row.label))
        .collect();
    assert_eq!(found, [("a_b", 0), ("a_b", 7), ("C1", 1)]);
}

#[test]
fn a_missing_table_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = read_table::<StudyFold>(&dir.path().join("folds.csv")).unwrap_err();
    assert!(matches!(&error, DataError::Io { .. }) && error.to_string().contains("folds.csv"));
}
