//! End-to-end tests of spinectl live in `tests/tests`.
