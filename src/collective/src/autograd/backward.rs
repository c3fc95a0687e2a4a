//! The backward pass, and the thread that waits for it.

use std::ffi::c_void;

use tch::Tensor;

use super::home::{Desk, DeskClosing, Home};
use crate::ffi::{self, Failure, call};

/// Adds the gradient of `loss` to the parameters.
pub(crate) fn run(loss: &Tensor) -> Result<(), Failure> {
    // libtorch's threads for a device would ask for this thread, which would sit in libtorch's wait.
    if Home::here().expects_guests() {
        return beside(loss);
    }
    // SAFETY: the tensor is live.
    call(|message| unsafe { ffi::spc_backward(ffi::handle(loss), message) })
}

/// The backward pass on a thread of its own, while this one runs the closures that belong to it.
fn beside(loss: &Tensor) -> Result<(), Failure> {
    struct Both {
        desk: Desk,
        closing: DeskClosing,
    }
    unsafe extern "C" fn serve(both: *mut c_void) {
        // SAFETY: the struct below, on the thread that made it, which alone uses the desk.
        unsafe { &(*both.cast::<Both>()).desk }.serve();
    }
    unsafe extern "C" fn close(both: *mut c_void) {
        // SAFETY: the struct below lives until this other thread was joined; what closes the desk is for any thread.
        unsafe { &(*both.cast::<Both>()).closing }.close();
    }
    let (desk, closing) = Desk::open();
    let mut both = Both { desk, closing };
    // SAFETY: the tensor is live, and the context lives across the call.
    call(|message| unsafe {
        ffi::spc_backward_beside(
            ffi::handle(loss),
            serve,
            close,
            (&raw mut both).cast(),
            message,
        )
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::thread::{self, ThreadId};

    use tch::{Device, Kind, Tensor};

    use super::{Home, beside};
    use crate::autograd::recompute;

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Counts the threads that are not its own on which it was dropped.
    struct Witness(ThreadId, Rc<Cell<(usize, usize)>>);

    impl Drop for Witness {
        fn drop(&mut self) {
            let (here, elsewhere) = self.1.get();
            self.1.set(if thread::current().id() == self.0 {
                (here + 1, elsewhere)
            } else {
                (here, elsewhere + 1)
            });
        }
    }

    /// tanh(x w), counted, with another recomputed tanh inside. It holds what must not leave this thread.
    fn block(
        x: &Tensor,
        weight: &Tensor,
        runs: &Rc<Cell<usize>>,
        drops: &Rc<Cell<(usize, usize)>>,
    ) -> Tensor {
        let home = thread::current().id();
        let (weight, runs) = (weight.shallow_clone(), Rc::clone(runs));
        let (outer, inner_drops) = (Witness(home, Rc::clone(drops)), Rc::clone(drops));
        let f = move |x: &Tensor, _: bool| {
            assert_eq!(thread::current().id(), outer.0);
            runs.set(runs.get() + 1);
            let inner = Witness(home, Rc::clone(&inner_drops));
            let tanh = move |x: &Tensor, _: bool| {
                assert_eq!(thread::current().id(), inner.0);
                Ok(x.tanh())
            };
            recompute(&x.matmul(&weight), Box::new(tanh)).map_err(|error| error.to_string())
        };
        recompute(x, Box::new(f)).unwrap()
    }

    #[test]
    fn closures_run_and_end_on_their_own_thread_when_backward_is_on_another() {
        let weight = Tensor::randn([4, 4], F32).set_requires_grad(true);
        let x = Tensor::randn([3, 4], F32);
        let expected = {
            let loss = x
                .matmul(&weight)
                .tanh()
                .matmul(&weight)
                .tanh()
                .sum(Kind::Float);
            Tensor::run_backward(&[loss], &[&weight], false, false).remove(0)
        };
        let (runs, drops) = (Rc::new(Cell::new(0)), Rc::new(Cell::new((0, 0))));
        for _ in 0..20 {
            let mut weight_grad = weight.grad();
            if weight_grad.defined() {
                _ = weight_grad.zero_();
            }
            runs.set(0);
            drops.set((0, 0));
            let y = block(&block(&x, &weight, &runs, &drops), &weight, &runs, &drops);
            let loss = y.sum(Kind::Float);
            assert_eq!(runs.get(), 2);
            beside(&loss).unwrap();
            assert_eq!(runs.get(), 4);
            assert!(weight.grad().equal(&expected));
            drop((y, loss));
            // Two outer blocks, and an inner one for each of their runs.
            assert_eq!(drops.get(), (6, 0));
            assert!(Home::here().desks_are_closed());
        }
    }

    #[test]
    fn errors_come_back_from_the_other_thread() {
        let weight = Tensor::ones([2], F32).set_requires_grad(true);
        let held = weight.shallow_clone();
        let f = move |x: &Tensor, first: bool| {
            assert!(first, "no second time");
            Ok(x * &held)
        };
        let loss = recompute(&Tensor::ones([2], F32), Box::new(f))
            .unwrap()
            .sum(Kind::Float);
        let failure = beside(&loss).unwrap_err();
        assert!(
            failure
                .text
                .contains("a recomputed block panicked: no second time"),
            "{failure:?}"
        );
        assert!(Home::here().desks_are_closed());
    }

    #[test]
    fn a_thread_that_does_not_wait_runs_nothing_for_others() {
        let weight = Tensor::ones([2], F32).set_requires_grad(true);
        let held = weight.shallow_clone();
        let drops = Rc::new(Cell::new((0, 0)));
        let witness = Witness(thread::current().id(), Rc::clone(&drops));
        let f = move |x: &Tensor, _: bool| {
            let _held_too = &witness;
            Ok(x * &held)
        };
        let y = recompute(&Tensor::ones([2], F32), Box::new(f)).unwrap();
        let failure = thread::spawn(move || {
            let failure = super::run(&y.sum(Kind::Float)).unwrap_err();
            drop(y);
            failure
        });
        let text = failure.join().unwrap().text;
        assert!(text.contains("belongs to another thread"), "{text}");
        // Nobody may drop it there.
        assert_eq!(drops.get(), (0, 0));
    }
}
