//! Drawing items by weight.

use crate::Error;
use crate::parallel::allocate;
use crate::rng::Rng;

/// Draws items by weight in constant time: Walker's alias table, built by Vose's method.
///
/// It uses additions, multiplications and divisions only, which IEEE 754 rounds in the same way on every platform.
#[derive(Debug)]
pub(crate) struct AliasTable {
    /// Slot `i` yields `i` with probability `.0`, and `.1` otherwise.
    slots: Vec<(f64, u64)>,
}

impl AliasTable {
    /// It is an error if `weights` is not one finite, non-negative number per item with a positive, finite sum.
    pub(crate) fn new(weights: &[f64], num_items: u64) -> Result<Self, Error> {
        if weights.len() as u64 != num_items {
            return Err(Error::invalid(
                "weights",
                format_args!("{} weights", weights.len()),
                format_args!("one for each of the {num_items} items"),
            ));
        }
        if let Some(position) = weights
            .iter()
            .position(|weight| !(weight.is_finite() && *weight >= 0.0))
        {
            return Err(Error::invalid(
                "weights",
                format_args!("{} at position {position}", weights[position]),
                "finite numbers that are not negative",
            ));
        }
        let total: f64 = weights.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::invalid(
                "weights",
                format_args!("a sum of {total}"),
                "a positive, finite sum",
            ));
        }
        let mut slots: Vec<(f64, u64)> = allocate(weights.len(), 1)?;
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for (item, (&weight, slot)) in weights.iter().zip(&mut slots).enumerate() {
            *slot = (weight / total * num_items as f64, item as u64);
            if slot.0 < 1.0 { &mut small } else { &mut large }.push(item);
        }
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            slots[poor].1 = rich as u64;
            slots[rich].0 -= 1.0 - slots[poor].0;
            if slots[rich].0 < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        // Items that are left because of rounding fill their slots alone.
        for &item in small.iter().chain(&large) {
            if weights[item] > 0.0 {
                slots[item].0 = 1.0;
            }
        }
        Ok(Self { slots })
    }

    /// An item with probability proportional to its weight.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> i64 {
        let slot = rng.below(self.slots.len() as u64);
        let (share, alias) = self.slots[slot as usize];
        let item = if rng.uniform_f64() < share {
            slot
        } else {
            alias
        };
        item as i64
    }
}

/// Weights of all items, for draws outside a set of items.
pub(crate) struct WeightedItems<'a> {
    weights: &'a [f64],
    positive: u64,
    table: AliasTable,
}

impl<'a> WeightedItems<'a> {
    /// The errors are those of [`AliasTable::new`].
    pub(crate) fn new(weights: &'a [f64], num_items: u64) -> Result<Self, Error> {
        let table = AliasTable::new(weights, num_items)?;
        let positive = weights.iter().filter(|&&weight| weight > 0.0).count() as u64;
        Ok(Self {
            weights,
            positive,
            table,
        })
    }

    /// An item with probability proportional to its weight.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> i64 {
        self.table.draw(rng)
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.weights.len()
    }

    /// How many items that can be drawn are not among the distinct `excluded`.
    pub(crate) fn available(&self, excluded: &[i64]) -> u64 {
        let lost = excluded
            .iter()
            .filter(|&&item| self.weights[item as usize] > 0.0)
            .count();
        self.positive - lost as u64
    }

    /// Fills `tree` with all weights except those of `excluded`.
    pub(crate) fn fill(
        &self,
        tree: &mut SumTree,
        excluded: impl Iterator<Item = i64>,
    ) -> Result<(), Error> {
        tree.fill(self.weights, excluded)
    }
}

/// A binary tree of sums of weights, from which single weights can be removed.
///
/// A removal recomputes the sums and does not subtract, so that small weights are not lost next to large ones.
#[derive(Default)]
pub(crate) struct SumTree {
    leaves: usize,
    /// Node `n` has the children `2 n` and `2 n + 1`; the root is 1, the leaves are the second half.
    sums: Vec<f64>,
}

impl SumTree {
    fn fill(&mut self, weights: &[f64], excluded: impl Iterator<Item = i64>) -> Result<(), Error> {
        self.leaves = weights.len().next_power_of_two();
        if self.sums.len() != 2 * self.leaves {
            self.sums = allocate(self.leaves, 2)?;
        }
        self.sums[self.leaves..self.leaves + weights.len()].copy_from_slice(weights);
        for item in excluded {
            self.sums[self.leaves + item as usize] = 0.0;
        }
        for node in (1..self.leaves).rev() {
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1];
        }
        Ok(())
    }

    /// A leaf with probability proportional to its weight; at least one weight must be positive.
    pub(crate) fn draw(&self, rng: &mut Rng) -> i64 {
        let mut target = rng.uniform_f64() * self.sums[1];
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            // Rounding may carry the target past the end of a sum: never into a branch that weighs nothing.
            if target >= self.sums[node] && self.sums[node + 1] > 0.0 {
                target -= self.sums[node];
                node += 1;
            }
        }
        (node - self.leaves) as i64
    }

    /// Removes a leaf.
    pub(crate) fn remove(&mut self, leaf: i64) {
        let mut node = self.leaves + leaf as usize;
        self.sums[node] = 0.0;
        while node > 1 {
            node /= 2;
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assume};

    use super::*;
    use crate::rng::Stage;

    properties! {
        fn the_slots_hold_exactly_the_weights(
            weights in prop::collection::vec(prop::sample::select(vec![0.0, 1.0, 0.3, 7.5, 1e-12, 1e9]), 1..60)
        ) {
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 0.0);
            let items = WeightedItems::new(&weights, weights.len() as u64).unwrap();
            let mut shares = vec![0.0; weights.len()];
            for (slot, &(share, alias)) in items.table.slots.iter().enumerate() {
                prop_assert!((0.0..=1.0 + 1e-9).contains(&share));
                shares[slot] += share.min(1.0) / weights.len() as f64;
                shares[alias as usize] += (1.0 - share).max(0.0) / weights.len() as f64;
            }
            for (&weight, share) in weights.iter().zip(shares) {
                prop_assert!((weight / total - share).abs() < 1e-9);
                prop_assert!(weight > 0.0 || share == 0.0);
            }
        }

        fn a_tree_gives_up_each_positive_leaf_once(
            weights in prop::collection::vec(prop::sample::select(vec![0.0, 1e-300, 1.0, 1e12, 1e300]), 1..60),
            seed: u64,
        ) {
            let mut tree = SumTree::default();
            tree.fill(&weights, std::iter::once(0)).unwrap();
            let mut rng = Rng::new(seed, Stage::Candidates, 0, 0);
            let mut left: Vec<_> = (1..weights.len()).filter(|&leaf| weights[leaf] > 0.0).collect();
            while !left.is_empty() {
                let leaf = tree.draw(&mut rng);
                let position = left.iter().position(|&other| other as i64 == leaf);
                prop_assert!(position.is_some());
                left.swap_remove(position.unwrap());
                tree.remove(leaf);
            }
        }
    }
}
