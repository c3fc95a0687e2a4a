//! The documents that a recipe is read from, and the faults found in them so far.

use std::cell::RefCell;

use crate::fault::Fault;
use crate::read::Source;
use crate::tree::Place;

/// What is being read: the documents for names and quotes, a file and those that it extends; the faults so far.
pub(crate) struct Reader<'a> {
    documents: &'a [Source],
    pub faults: RefCell<Vec<Fault>>,
}

impl<'a> Reader<'a> {
    pub fn new(documents: &'a [Source]) -> Self {
        Reader {
            documents,
            faults: RefCell::default(),
        }
    }

    pub fn fault(&self, place: &Place, path: &str, message: String, help: String) {
        let document = self.documents.get(place.document);
        let written = place.set.is_none() && place.line > 0;
        let source_line = document
            .filter(|_| written)
            .and_then(|document| document.text.lines().nth(place.line as usize - 1))
            .map(|text| (place.line, text.to_owned()));
        let name = document.map_or("", |document| document.name.as_str());
        let shown = match &place.set {
            Some(argument) => format!("--set {argument}"),
            None if written => format!("{name}:{}:{}", place.line, place.column),
            None => name.to_owned(),
        };
        let fault = Fault {
            place: shown,
            source_line,
            column: place.column,
            path: path.to_owned(),
            message,
            help,
        };
        let mut faults = self.faults.borrow_mut();
        // The models of a stage share what stands in its `training`: a fault there is one fault.
        if !faults.iter().any(|told| same(told, &fault)) {
            faults.push(fault);
        }
    }
}

/// Whether two faults are of one value that was read for two models.
fn same(a: &Fault, b: &Fault) -> bool {
    let key = |fault: &Fault| fault.path.rsplit('.').next().map(str::to_owned);
    let told = |fault: &Fault| (fault.place.clone(), fault.column, fault.message.clone());
    key(a) == key(b) && told(a) == told(b)
}
