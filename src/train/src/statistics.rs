//! The running statistics of batch normalisation, over ranks and over updates that are left out.

use collective::{ProcessGroup, ReduceOp};
use tch::Tensor;

use crate::Result;

/// Running means and variances of all layers that are trained.
#[derive(Debug)]
pub(crate) struct Statistics {
    buffers: Vec<Tensor>,
    /// All of them one after another, as they were before the update at work.
    before: Option<Tensor>,
}

impl Statistics {
    pub fn new(buffers: &[Tensor]) -> Self {
        Statistics {
            buffers: buffers.iter().map(Tensor::shallow_clone).collect(),
            before: None,
        }
    }

    /// Makes each the mean over ranks, so that any rank's state is the job's state and a checkpoint at any step resumes
    /// exactly.
    pub fn average(&self, group: &ProcessGroup) -> Result<()> {
        if group.world_size() == 1 || self.buffers.is_empty() {
            return Ok(());
        }
        let all = self.joined()?;
        group.all_reduce(&all, ReduceOp::Mean)?;
        self.put(&all)
    }

    /// Before an update that may be left out.
    pub fn remember(&mut self) -> Result<()> {
        if !self.buffers.is_empty() {
            self.before = Some(self.joined()?);
        }
        Ok(())
    }

    /// After an update that was left out. An activation that overflowed would stay in the statistics for ever: then those
    /// of before come back. Finite ones stay, as in PyTorch.
    pub fn recover(&mut self) -> Result<()> {
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        let finite = self.joined()?.f_isfinite()?.f_all()?;
        match finite.f_int64_value(&[])? {
            0 => self.put(&before),
            _ => Ok(()),
        }
    }

    fn joined(&self) -> Result<Tensor> {
        let flat = self.buffers.iter().map(|b| b.f_view(-1));
        Ok(Tensor::f_cat(
            &flat.collect::<std::result::Result<Vec<_>, _>>()?,
            0,
        )?)
    }

    fn put(&self, all: &Tensor) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let mut from = 0;
        for buffer in &self.buffers {
            let length = buffer.numel() as i64;
            let part = all.f_narrow(0, from, length)?.f_view_as(buffer)?;
            buffer.shallow_clone().f_copy_(&part)?;
            from += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_broken_statistics_come_back() {
        let mut mean = Tensor::from_slice(&[1.0f32, 2.0]);
        let variance = Tensor::from_slice(&[3.0f32]);
        let mut statistics = Statistics::new(&[mean.shallow_clone(), variance.shallow_clone()]);
        statistics.remember().unwrap();
        let _ = mean.f_add_scalar_(1.0).unwrap();
        statistics.recover().unwrap();
        assert_eq!(Vec::<f32>::try_from(&mean).unwrap(), [2.0, 3.0]);

        statistics.remember().unwrap();
        let _ = mean.f_fill_(f64::INFINITY).unwrap();
        let _ = variance.shallow_clone().f_fill_(7.0).unwrap();
        statistics.recover().unwrap();
        assert_eq!(Vec::<f32>::try_from(&mean).unwrap(), [2.0, 3.0]);
        assert_eq!(variance.double_value(&[0]), 3.0);
    }
}
