//! A one-layer bidirectional LSTM with PyTorch's layout and parameter names.

use tch::Tensor;
use tch::nn::Path;

use crate::error::Result;
use crate::layer::uniform;

/// (B, S, input) -> (B, S, 2 D): forward states, then backward ones.
#[derive(Debug)]
pub struct BiLstm {
    /// weight_ih, weight_hh, bias_ih, bias_hh of the forward direction, then of the reverse one.
    parameters: Vec<Tensor>,
    hidden: i64,
}

impl BiLstm {
    pub fn new(path: &Path, input: i64, hidden: i64) -> Result<Self> {
        let mut parameters = Vec::with_capacity(8);
        for suffix in ["", "_reverse"] {
            for (name, shape) in [
                ("weight_ih", vec![4 * hidden, input]),
                ("weight_hh", vec![4 * hidden, hidden]),
                ("bias_ih", vec![4 * hidden]),
                ("bias_hh", vec![4 * hidden]),
            ] {
                parameters.push(path.f_var(
                    &format!("{name}_l0{suffix}"),
                    &shape,
                    uniform(hidden),
                )?);
            }
        }
        Ok(BiLstm { parameters, hidden })
    }

    /// 2 D: the width of what [`BiLstm::forward`] returns.
    pub fn width(&self) -> i64 {
        2 * self.hidden
    }

    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (batch, _, _) = x.size3()?;
        let zero = Tensor::f_zeros([2, batch, self.hidden], (x.kind(), x.device()))?;
        let (output, _, _) = x.f_lstm(
            &[&zero, &zero],
            &self.parameters.iter().collect::<Vec<_>>(),
            true,
            1,
            0.0,
            train,
            true,
            true,
        )?;
        Ok(output)
    }
}
