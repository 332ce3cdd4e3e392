//! Training batches, and a thread that prefetches them.

use std::fmt::Debug;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Error;
use crate::parallel::{Interrupt, allocate};

/// One training batch of episodes or sequences. Arrays are in row-major order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Pairs of neighbouring items in a row.
    pub pairs: usize,
    /// Negatives of a pair.
    pub per_pair: usize,
    /// The users: (batch,).
    pub users: Vec<i64>,
    /// Their items in order: (batch, pairs + 1); −1 where there is none.
    pub items: Vec<i64>,
    /// Negatives for the pairs (items `j`, items `j + 1`): (batch, pairs, per pair); −1 where there is no pair.
    pub negatives: Vec<i64>,
    /// Negatives for all rows of the batch: (shared negatives,).
    pub shared_negatives: Vec<i64>,
}

impl Batch {
    /// A batch of zeros.
    pub(crate) fn allocate(
        batch_size: usize,
        pairs: usize,
        per_pair: usize,
        shared_negatives: usize,
    ) -> Result<Self, Error> {
        let too_wide = |elements| Error::OutOfMemory { elements };
        let columns = pairs
            .checked_add(1)
            .ok_or_else(|| too_wide(batch_size as u128 * (pairs as u128 + 1)))?;
        let width = pairs
            .checked_mul(per_pair)
            .ok_or_else(|| too_wide(batch_size as u128 * pairs as u128 * per_pair as u128))?;
        Ok(Self {
            pairs,
            per_pair,
            users: allocate(batch_size, 1)?,
            items: allocate(batch_size, columns)?,
            negatives: allocate(batch_size, width)?,
            shared_negatives: allocate(shared_negatives, 1)?,
        })
    }
}

/// Draws training batches. A batch is a function of the sampler and the step.
pub trait BatchSampler: Debug + Send + Sync {
    /// The batch of a training step.
    fn sample(&self, step: u64, batch_size: usize, interrupt: &Interrupt) -> Result<Batch, Error>;

    /// Estimated nanoseconds for a row of a batch.
    fn nanoseconds_per_row(&self) -> u64;
}

/// A thread that draws the batches of successive steps ahead of their use.
///
/// It stops when the prefetcher is closed or dropped.
#[derive(Debug)]
pub struct BatchPrefetcher {
    process: u32,
    interrupt: Arc<Interrupt>,
    worker: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    batches: Receiver<Result<Batch, Error>>,
    thread: JoinHandle<()>,
}

impl BatchPrefetcher {
    /// Starts to draw the batches of `start_step`, `start_step + 1` … and keeps up to `depth` of them ready.
    pub fn new(
        sampler: Arc<dyn BatchSampler>,
        start_step: u64,
        batch_size: usize,
        depth: usize,
    ) -> Result<Self, Error> {
        // The bound is allocated ahead.
        if !(1..=1 << 16).contains(&depth) {
            return Err(Error::invalid("depth", depth, "an integer from 1 to 65536"));
        }
        let interrupt = Arc::new(Interrupt::new());
        let (sender, batches) = mpsc::sync_channel(depth);
        let stop = Arc::clone(&interrupt);
        let thread = std::thread::Builder::new()
            .name("metatl-batches".to_owned())
            .spawn(move || {
                for step in start_step..=u64::MAX {
                    let batch = sampler.sample(step, batch_size, &stop);
                    let failed = batch.is_err();
                    // Nobody receives any more: the prefetcher was closed.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            })
            .map_err(|error| Error::Threads {
                threads: 1,
                reason: error.to_string(),
            })?;
        Ok(Self {
            process: std::process::id(),
            interrupt,
            worker: Mutex::new(Some(Worker { batches, thread })),
        })
    }

    /// Waits up to `timeout` for the next batch. `Err(Interrupted)` once the prefetcher is closed.
    pub fn next(&self, timeout: Duration) -> Result<Option<Batch>, Error> {
        let worker = self.worker()?;
        // `close` waits for the lock: let it have it.
        self.interrupt.check()?;
        let Some(worker) = worker.as_ref() else {
            return Err(Error::Interrupted);
        };
        match worker.batches.recv_timeout(timeout) {
            Ok(batch) => batch.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Interrupted),
        }
    }

    /// Stops the thread and waits until it has ended. Closing twice does nothing.
    pub fn close(&self) -> Result<(), Error> {
        // Forked? Then neither touch the lock nor the thread.
        self.check_process()?;
        self.interrupt.raise();
        if let Some(Worker { batches, thread }) = self.worker()?.take() {
            // A thread that waits for room in the channel wakes up when there is no receiver.
            drop(batches);
            // A panic of the thread has been printed; there is nothing to add to it.
            let _ = thread.join();
        }
        Ok(())
    }

    fn check_process(&self) -> Result<(), Error> {
        if self.process == std::process::id() {
            Ok(())
        } else {
            Err(Error::Fork {
                object: "a BatchPrefetcher",
            })
        }
    }

    fn worker(&self) -> Result<MutexGuard<'_, Option<Worker>>, Error> {
        self.check_process()?;
        Ok(self.worker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for BatchPrefetcher {
    fn drop(&mut self) {
        if self.close().is_err() {
            // In a forked child the thread does not exist, and its handle must not be touched: leak it.
            let worker = std::mem::replace(&mut self.worker, Mutex::new(None));
            std::mem::forget(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episodes::{EpisodeSampler, EpisodeSettings};
    use crate::interactions::Interactions;

    #[test]
    fn a_prefetcher_draws_what_the_sampler_draws() {
        let items: Vec<i64> = (0..9).chain(5..29).collect();
        let interactions = Interactions::new(&[0, 9, 33], &items, 30, &Interrupt::new()).unwrap();
        let settings = EpisodeSettings {
            k: 3,
            negatives: 2,
            shared_negatives: 4,
            window_share: 0.5,
            released_windows: false,
            shuffle_share: 0.0,
            seed: 1,
        };
        let sampler = Arc::new(EpisodeSampler::new(Arc::new(interactions), settings).unwrap());
        let shared: Arc<dyn BatchSampler> = Arc::clone(&sampler) as _;
        let prefetcher = BatchPrefetcher::new(shared, 5, 7, 2).unwrap();
        for step in 5..50 {
            let expected = sampler.sample(step, 7, &Interrupt::new()).unwrap();
            let batch = loop {
                if let Some(batch) = prefetcher.next(Duration::from_millis(50)).unwrap() {
                    break batch;
                }
            };
            assert_eq!(batch, expected);
        }
        prefetcher.close().unwrap();
        assert_eq!(prefetcher.next(Duration::ZERO), Err(Error::Interrupted));
    }
}
