//! Tables for people: plain columns, which `awk` and `less -S` can take as well.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

/// A column's heading and how its cells stand.
pub enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// An empty table with these columns.
pub fn new(columns: &[Column]) -> Table {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    table
        .load_style(TableStyle::new().header_separator(rule))
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| match column {
        Column::Text(heading) => Cell::new(heading),
        Column::Number(heading) => Cell::new(heading).set_alignment(CellAlignment::Right),
    }));
    for (index, column) in columns.iter().enumerate() {
        if let (Column::Number(_), Some(column)) = (column, table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What stands where there is nothing to say.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}
