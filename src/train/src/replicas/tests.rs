use super::*;
use crate::testing::{Small, on_ranks};

#[test]
fn a_flipped_bit_of_one_of_two_ranks_stops_both_and_names_the_parameter() {
    let ended = on_ranks(2, |group| {
        let small = Small::new();
        let replicas = Replicas::new(&small.store, group, 10);
        replicas.after(0, true).unwrap();
        if group.rank() == 1 {
            small.flip_bit("head.weight", 7);
        }
        // Not yet time to look.
        replicas.after(9, false).unwrap();
        let errors = [replicas.after(10, false), replicas.after(11, true)];
        // Switched off.
        let off = Replicas::new(&small.store, group, 0);
        off.after(10, true).unwrap();
        errors.map(|error| {
            let error = error.unwrap_err();
            assert_eq!(error.class(), event::FailureClass::Replicas);
            error.to_string()
        })
    });
    for [at_ten, before_checkpoint] in ended {
        for part in [
            "after update 10",
            "ranks 0 and 1",
            "outvote",
            "`head.weight`",
        ] {
            assert!(at_ten.contains(part), "{at_ten}");
        }
        assert!(before_checkpoint.contains("after update 11"));
    }
}

#[test]
fn of_three_ranks_the_one_that_differs_is_named() {
    let ended = on_ranks(3, |group| {
        let small = Small::new();
        if group.rank() == 1 {
            // Of a buffer, too: the order is that of names.
            small.flip_bit("backbone.bn.running_var", 3);
            small.flip_bit("head.bias", 0);
        }
        let replicas = Replicas::new(&small.store, group, 1);
        replicas.after(4, false).unwrap_err().to_string()
    });
    for error in ended {
        assert!(
            error.contains("rank 1 holds other weights than the 2 others"),
            "{error}"
        );
        assert!(error.contains("`backbone.bn.running_var`"), "{error}");
    }
}

#[test]
fn a_hash_sees_every_value_and_its_place_in_every_kind() {
    let value = |tensor: &Tensor| hash(tensor).unwrap().int64_value(&[]);
    for kind in [
        Kind::Float,
        Kind::Half,
        Kind::BFloat16,
        Kind::Double,
        Kind::Int64,
        Kind::Uint8,
    ] {
        let plain = Tensor::arange(24, (kind, Device::Cpu)).view([4, 6]);
        let of_plain = value(&plain);
        assert_eq!(of_plain, value(&plain.copy()), "{kind:?}");
        assert_ne!(of_plain, value(&plain.flip([1])), "{kind:?}: swapped");
        for index in 0..24 {
            let other = plain.copy();
            let _ = other.view([-1]).narrow(0, index, 1).fill_(100);
            assert_ne!(of_plain, value(&other), "{kind:?}: {index}");
        }
    }
    // What is equal in value and not in bits: a zero's sign.
    let zeros = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    assert_ne!(value(&zeros), value(&(-&zeros)));
    // Memory layouts do not count.
    let image = Tensor::randn([2, 3, 4, 5], (Kind::Float, Device::Cpu));
    let layout = image
        .permute([0, 2, 3, 1])
        .contiguous()
        .permute([0, 3, 1, 2]);
    assert!(!layout.is_contiguous());
    assert_eq!(value(&image), value(&layout));
}

#[test]
fn the_minority_is_named_and_where_there_is_none_all() {
    let ranks = |of_ranks: &[&[i64]]| {
        let of_ranks: Vec<Vec<i64>> = of_ranks.iter().map(|hashes| hashes.to_vec()).collect();
        difference(&of_ranks).map(|d| (d.variable, d.ranks, d.majority))
    };
    assert_eq!(ranks(&[&[1, 2], &[1, 2]]), None);
    assert_eq!(ranks(&[&[1, 2], &[1, 3]]), Some((1, vec![0, 1], None)));
    assert_eq!(
        ranks(&[&[0], &[1], &[1], &[1]]),
        Some((0, vec![0], Some(3)))
    );
    assert_eq!(
        ranks(&[&[0], &[0], &[1], &[1]]),
        Some((0, vec![0, 1, 2, 3], None))
    );
    let of_five = ranks(&[&[7], &[1], &[7], &[2], &[7]]);
    assert_eq!(of_five, Some((0, vec![1, 3], Some(3))));
}
