//! TorchScript modules with named inputs and several outputs, which tch's own tracing does not make.

use std::ffi::CString;

use tch::{CModule, Tensor};

use crate::error::{CollectiveError, Result};
use crate::ffi::{self, call};

/// Records one run of `body` on `inputs` as a module's `forward`. It takes tensors of the same shapes under these names and
/// returns what `body` did: a tensor, or a tuple of several. Every other tensor that `body` uses becomes a constant of the
/// module, and may not want a gradient.
///
/// # Errors
/// Those of `body`; `Invalid` for a name that is no identifier or no output; `Torch`: libtorch refused.
pub fn trace<E: From<CollectiveError>>(
    inputs: &[(&str, Tensor)],
    body: impl FnOnce(&[Tensor]) -> std::result::Result<Vec<Tensor>, E>,
) -> std::result::Result<CModule, E> {
    let names = inputs.iter().map(|(name, _)| identifier(name));
    let names = names.collect::<Result<Vec<CString>>>()?;
    let tensors: Vec<Tensor> = inputs.iter().map(|(_, t)| t.shallow_clone()).collect();
    let mut body = Some(body);
    let mut outcome = Ok(());
    let mut record = |inputs: &[Tensor]| {
        if let Some(body) = body.take() {
            let outputs = body(inputs);
            outcome = outputs.and_then(|outputs| Ok(sign(&names, &outputs)?));
        }
        // The outputs are the graph's already.
        Vec::new()
    };
    let module = CModule::create_by_tracing("Model", "forward", &tensors, &mut record);
    outcome?;
    module.map_err(|error| {
        let (operation, detail) = ("trace".to_owned(), error.to_string());
        CollectiveError::Torch { operation, detail }.into()
    })
}

/// Gives the trace that is being recorded its inputs' names and its outputs.
fn sign(names: &[CString], outputs: &[Tensor]) -> Result<()> {
    if outputs.is_empty() {
        let reason = "a module that returns nothing cannot be recorded".to_owned();
        return Err(CollectiveError::invalid("trace", reason));
    }
    let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let outputs = ffi::handles(outputs);
    // SAFETY: names and tensors live across the call, and the counts are those of the lists.
    let signed = call(|message| unsafe {
        ffi::spc_trace_signature(
            names.as_ptr(),
            names.len(),
            outputs.as_ptr(),
            outputs.len(),
            message,
        )
    });
    signed.map_err(|failure| CollectiveError::local("trace", failure))
}

/// A name that a module's parameter can have.
fn identifier(name: &str) -> Result<CString> {
    let good = |c: char| c.is_ascii_lowercase() || c == '_';
    let invalid = || CollectiveError::invalid("trace", format!("`{name}` is no input's name"));
    match !name.is_empty() && name.chars().all(good) {
        true => CString::new(name).map_err(|_| invalid()),
        false => Err(invalid()),
    }
}
