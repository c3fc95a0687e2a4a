//! Parameter groups: which tensors decay, and which learn at the backbone's own rate.

/// The prefix of the CNN's parameters in every stage's model.
const BACKBONE: &str = "backbone.";

/// Parameters that share a learning rate and a weight decay.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its learning rate over the main one: it follows the same schedule.
    pub rate: f64,
    pub weight_decay: f64,
    /// Places in the list of parameters, rising.
    pub members: Vec<usize>,
}

/// How parameters are told apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grouping {
    pub weight_decay: f64,
    /// Biases and norms decay too.
    pub decay_all: bool,
    /// The backbone's learning rate over the main one.
    pub backbone_rate: f64,
}

impl Grouping {
    /// The groups of parameters given by name and shape, in the order of their first member; each parameter is in one.
    ///
    /// Weight decay pulls a weight towards zero. For a bias or the gain of a norm zero is no natural place, so tensors of
    /// at most one dimension (norms, all biases, those of the LSTM included) and names that end in `.bias` do not decay:
    /// the rule of timm's `param_groups_weight_decay`.
    pub fn groups<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a [i64])>,
    ) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (index, (name, shape)) in parameters.into_iter().enumerate() {
            let decays = self.decay_all || !(shape.len() <= 1 || name.ends_with(".bias"));
            let weight_decay = if decays { self.weight_decay } else { 0.0 };
            let rate = match name.starts_with(BACKBONE) {
                true => self.backbone_rate,
                false => 1.0,
            };
            match groups
                .iter_mut()
                .find(|group| (group.rate, group.weight_decay) == (rate, weight_decay))
            {
                Some(group) => group.members.push(index),
                None => groups.push(Group {
                    rate,
                    weight_decay,
                    members: vec![index],
                }),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: [(&str, &[i64]); 8] = [
        ("backbone.conv1.0.weight", &[32, 3, 3, 3]),
        ("backbone.bn1.weight", &[32]),
        ("backbone.layer1.0.conv2.fc1.bias", &[32]),
        ("rnn.weight_ih_l0", &[512, 2064]),
        ("rnn.bias_ih_l0", &[512]),
        ("head.weight", &[7, 256]),
        ("head.bias", &[7]),
        // No layer here has one like this, and it is a bias all the same.
        ("head.scale.bias", &[7, 1]),
    ];

    fn groups(grouping: Grouping) -> Vec<(f64, f64, Vec<usize>)> {
        let groups = grouping.groups(PARAMETERS);
        groups
            .into_iter()
            .map(|group| (group.rate, group.weight_decay, group.members))
            .collect()
    }

    const DECAY: Grouping = Grouping {
        weight_decay: 0.05,
        decay_all: false,
        backbone_rate: 1.0,
    };

    #[test]
    fn biases_and_norms_do_not_decay() {
        assert_eq!(
            groups(DECAY),
            [(1.0, 0.05, vec![0, 3, 5]), (1.0, 0.0, vec![1, 2, 4, 6, 7])]
        );
        let all = Grouping {
            decay_all: true,
            ..DECAY
        };
        assert_eq!(groups(all), [(1.0, 0.05, (0..8).collect())]);
        let none = Grouping {
            weight_decay: 0.0,
            ..DECAY
        };
        assert_eq!(groups(none), [(1.0, 0.0, (0..8).collect())]);
    }

    #[test]
    fn the_backbone_has_its_own_rate() {
        let grouping = Grouping {
            backbone_rate: 0.1,
            ..DECAY
        };
        assert_eq!(
            groups(grouping),
            [
                (0.1, 0.05, vec![0]),
                (0.1, 0.0, vec![1, 2]),
                (1.0, 0.05, vec![3, 5]),
                (1.0, 0.0, vec![4, 6, 7]),
            ]
        );
    }
}
