//! The best of many scored items.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The best items so far, at most `size` of them. Of equal scores the lower item is better.
pub(super) struct Best {
    kept: BinaryHeap<Entry>,
    size: usize,
}

/// A scored item. The greatest entry is the worst item, because a heap removes the greatest entry first.
#[derive(Clone, Copy)]
struct Entry {
    score: f32,
    item: i64,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Not `total_cmp`: 0 and −0 are a tie. NaN never gets here.
        let by_score = other.score.partial_cmp(&self.score);
        by_score
            .unwrap_or(Ordering::Equal)
            .then(self.item.cmp(&other.item))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl Best {
    /// Keeps the best `size` items.
    pub(super) fn new(size: usize) -> Self {
        Self {
            kept: BinaryHeap::new(),
            size,
        }
    }

    /// The score that an item after all earlier ones has to exceed to be kept; `None` while fewer than `size` items
    /// are kept.
    pub(super) fn threshold(&self) -> Option<f32> {
        if self.kept.len() < self.size {
            None
        } else {
            Some(self.kept.peek().map_or(f32::INFINITY, |worst| worst.score))
        }
    }

    /// Keeps an item if it is among the best. A NaN is ignored; the caller counts NaN.
    pub(super) fn offer(&mut self, item: i64, score: f32) {
        if score.is_nan() {
            return;
        }
        let entry = Entry { score, item };
        if self.kept.len() < self.size {
            self.kept.push(entry);
        } else if let Some(mut worst) = self.kept.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    /// Offers consecutive items from `first` on, which come after all earlier ones.
    pub(super) fn offer_run(&mut self, first: usize, scores: &[f32]) {
        let mut threshold = self.threshold();
        for (item, &score) in (first as i64..).zip(scores) {
            // Most items fail this test. An item with the same score as the worst kept item is not kept.
            if threshold.is_none_or(|threshold| score > threshold) {
                self.offer(item, score);
                threshold = self.threshold();
            }
        }
    }

    /// The best items of both.
    pub(super) fn merge(mut self, other: Self) -> Self {
        for entry in other.kept {
            self.offer(entry.item, entry.score);
        }
        self
    }

    /// Writes the kept items and their scores, best first, and then −1 and −∞.
    pub(super) fn write(self, items: &mut [i64], scores: &mut [f32]) {
        items.fill(-1);
        scores.fill(f32::NEG_INFINITY);
        let sorted = self.kept.into_sorted_vec();
        for ((item, score), entry) in items.iter_mut().zip(scores).zip(sorted) {
            *item = entry.item;
            *score = entry.score;
        }
    }
}
