//! The best of many scored items.

/// Up to so many items are kept in order; more of them in a heap, where an insertion moves fewer of them.
const KEPT_IN_ORDER: usize = 64;

/// The best items so far, at most `size` of them. Of equal scores the lower item is better.
pub(super) struct Best {
    /// In no order while there are fewer than `size`. Then in ascending order, or a heap whose first entry is the least.
    kept: Vec<Entry>,
    size: usize,
}

/// A scored item as one number: the better of two items is the greater number.
///
/// The upper half is the score, in a form that compares as integers do; the lower half is the complement of the item.
type Entry = u128;

const SIGN: u32 = 1 << 31;

/// NaN never gets here.
fn entry(item: i64, score: f32) -> Entry {
    // 0 and −0 are a tie: −0 + 0 is 0.
    let bits = (score + 0.0).to_bits();
    let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    Entry::from(ordered) << 64 | Entry::from(!(item as u64))
}

fn score_of(entry: Entry) -> f32 {
    let ordered = (entry >> 64) as u32;
    f32::from_bits(if ordered & SIGN == 0 {
        !ordered
    } else {
        ordered ^ SIGN
    })
}

fn item_of(entry: Entry) -> i64 {
    !(entry as u64) as i64
}

impl Best {
    /// Keeps the best `size` items.
    pub(super) fn new(size: usize) -> Self {
        Self {
            kept: Vec::with_capacity(size.min(KEPT_IN_ORDER)),
            size,
        }
    }

    /// The score that an item after all earlier ones has to exceed to be kept; `None` while fewer than `size` items
    /// are kept.
    pub(super) fn threshold(&self) -> Option<f32> {
        if self.kept.len() < self.size {
            None
        } else {
            Some(
                self.kept
                    .first()
                    .map_or(f32::INFINITY, |&worst| score_of(worst)),
            )
        }
    }

    /// Keeps an item if it is among the best. A NaN is ignored; the caller counts NaN.
    pub(super) fn offer(&mut self, item: i64, score: f32) {
        if !score.is_nan() {
            self.insert(entry(item, score));
        }
    }

    fn insert(&mut self, entry: Entry) {
        if self.kept.len() < self.size {
            self.kept.push(entry);
            if self.kept.len() == self.size {
                // An ascending list is a heap too.
                self.kept.sort_unstable();
            }
        } else if self.kept.first().is_some_and(|&worst| entry > worst) {
            self.kept[0] = entry;
            if self.size <= KEPT_IN_ORDER {
                // The entries below move down by one.
                let mut position = 0;
                while let Some(&next) = self.kept.get(position + 1)
                    && next < entry
                {
                    self.kept[position] = next;
                    position += 1;
                }
                self.kept[position] = entry;
            } else {
                sift_down(&mut self.kept);
            }
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
            self.insert(entry);
        }
        self
    }

    /// Writes the kept items and their scores, best first, and then −1 and −∞.
    pub(super) fn write(mut self, items: &mut [i64], scores: &mut [f32]) {
        items.fill(-1);
        scores.fill(f32::NEG_INFINITY);
        self.kept.sort_unstable();
        for ((item, score), &entry) in items.iter_mut().zip(scores).zip(self.kept.iter().rev()) {
            *item = item_of(entry);
            *score = score_of(entry);
        }
    }
}

/// Moves the first entry of a heap down to where it belongs.
fn sift_down(heap: &mut [Entry]) {
    let mut position = 0;
    loop {
        let left = 2 * position + 1;
        let Some(&of_left) = heap.get(left) else {
            return;
        };
        let child = match heap.get(left + 1) {
            Some(&of_right) if of_right < of_left => left + 1,
            _ => left,
        };
        if heap[position] <= heap[child] {
            return;
        }
        heap.swap(position, child);
        position = child;
    }
}
