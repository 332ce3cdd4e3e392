//! Threads: cached pools that survive a fork, chunks of work, and interruption.

use std::cell::RefCell;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Error;

/// Estimated work of one chunk in nanoseconds: long compared with the cost of handing it out, short enough for a
/// prompt interrupt.
const CHUNK_WORK: u64 = 100_000;

/// The environment variable that sets the number of threads.
pub const NUM_THREADS: &str = "METATL_NUM_THREADS";

/// Requests for more threads than this are errors.
const MAX_THREADS: usize = 1024;

/// Work up to this many nanoseconds (a caller's estimate) stays on the calling thread: waking others costs tens
/// of microseconds.
const INLINE_WORK: u64 = 250_000;

/// Work up to this many nanoseconds (a caller's estimate) is too short to be interrupted: the calling thread does
/// its share of it and does not check for interruptions.
const SHORT_WORK: u64 = 5_000_000;

/// How long the calling thread waits actively for the threads that help it: about as long as waking it up would
/// take.
const AWAKE: Duration = Duration::from_micros(50);

/// How often the waiting thread checks for an interruption.
const POLL: Duration = Duration::from_millis(50);

/// A flag that asks running kernels to stop. Kernels check it at least once per chunk, every few milliseconds.
#[derive(Debug, Default)]
pub struct Interrupt(AtomicBool);

impl Interrupt {
    /// A flag that is not raised.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Asks the kernel to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// [`Error::Interrupted`] once the flag is raised.
    pub fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// How many threads to use: `requested`, else `METATL_NUM_THREADS`, else what the operating system grants
/// this process (CPU affinity and quota included).
pub fn thread_count(requested: Option<u64>) -> Result<usize, Error> {
    let valid = |argument, found: String, count: Option<u64>| match count {
        Some(count) if (1..=MAX_THREADS as u64).contains(&count) => Ok(count as usize),
        _ => Err(Error::invalid(
            argument,
            found,
            format_args!("an integer from 1 to {MAX_THREADS}"),
        )),
    };
    if let Some(count) = requested {
        return valid("num_threads", count.to_string(), requested);
    }
    match std::env::var_os(NUM_THREADS) {
        Some(value) if !value.is_empty() => {
            let text = value.to_string_lossy();
            valid(NUM_THREADS, format!("{text:?}"), text.trim().parse().ok())
        }
        _ => Ok(available_parallelism()),
    }
}

/// The number of threads that the operating system grants. It is cached, because asking takes a large part of the
/// time of a small kernel.
fn available_parallelism() -> usize {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let count = std::thread::available_parallelism().map_or(1, NonZero::get);
            let count = count.min(MAX_THREADS);
            KNOWN.store(count, Ordering::Relaxed);
            count
        }
        known => known,
    }
}

/// The pools of one process, one per thread count.
struct Pools {
    process: u32,
    pools: Vec<Arc<ThreadPool>>,
}

static POOLS: ArcSwapOption<Pools> = ArcSwapOption::const_empty();

impl Pools {
    fn find(&self, process: u32, threads: usize) -> Option<&Arc<ThreadPool>> {
        self.pools
            .iter()
            .find(|pool| self.process == process && pool.current_num_threads() == threads)
    }
}

/// The pool of this process with `threads` threads.
///
/// Lock-free, because a fork copies locks in whatever state they are in. A forked child finds its parent's
/// pools, whose threads do not exist there; it leaks them (dropping them would wait for those threads) and
/// builds its own.
fn pool(threads: usize) -> Result<Arc<ThreadPool>, Error> {
    let process = std::process::id();
    if let Some(pool) = POOLS
        .load()
        .as_deref()
        .and_then(|pools| pools.find(process, threads))
    {
        return Ok(Arc::clone(pool));
    }
    let built = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("metatl-{index}"))
        .build()
        .map(Arc::new)
        .map_err(|error| Error::Threads {
            threads,
            reason: error.to_string(),
        })?;
    POOLS.rcu(|current| {
        let mut pools = Vec::new();
        if let Some(current) = current {
            if current.process == process {
                pools.clone_from(&current.pools);
            } else {
                std::mem::forget(Arc::clone(current));
            }
        }
        // Another thread may have been quicker; then its pool is the one that everyone shares.
        if !pools
            .iter()
            .any(|pool| pool.current_num_threads() == threads)
        {
            pools.push(Arc::clone(&built));
        }
        Some(Arc::new(Pools { process, pools }))
    });
    let current = POOLS.load();
    let shared = current
        .as_deref()
        .and_then(|pools| pools.find(process, threads));
    Ok(shared.map_or(built, Arc::clone))
}

thread_local! {
    /// The pool that helps the kernel on this thread.
    static HELPERS: RefCell<Option<Arc<ThreadPool>>> = const { RefCell::new(None) };
}

/// Runs `kernel` on this thread, with the threads of `pool` for its chunks.
fn run_with<R>(pool: Arc<ThreadPool>, kernel: impl FnOnce() -> R) -> R {
    /// Restores the previous value, also after a panic.
    struct Restore(Option<Arc<ThreadPool>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HELPERS.set(self.0.take());
        }
    }
    let _restore = Restore(HELPERS.replace(Some(pool)));
    kernel()
}

/// Runs `kernel` on `threads` threads, or on the calling thread alone if `work` (estimated nanoseconds on one
/// thread) is small.
///
/// The calling thread is one of them if the work is short. If it is long, the calling thread waits and calls
/// `keep_waiting` every 50 ms; when that returns `false`, the interrupt is raised and the kernel returns early.
pub fn run<R: Send>(
    threads: usize,
    work: u64,
    kernel: impl FnOnce(&Interrupt) -> Result<R, Error> + Send,
    mut keep_waiting: impl FnMut() -> bool,
) -> Result<R, Error> {
    let interrupt = Interrupt::new();
    if work < INLINE_WORK || (threads == 1 && work < SHORT_WORK) {
        return kernel(&interrupt);
    }
    let pool = pool(threads)?;
    if work < SHORT_WORK {
        return run_with(pool, || kernel(&interrupt));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let helpers = Arc::clone(&pool);
    pool.in_place_scope(|scope| {
        let interrupt = &interrupt;
        scope.spawn(move |_| {
            // The receiver outlives this task, so there is always someone to send to.
            let _ = sender.send(run_with(helpers, || kernel(interrupt)));
        });
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {
                    if !keep_waiting() {
                        interrupt.raise();
                    }
                }
                // Only a panic drops the sender unused; the scope passes it on when this closure returns.
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
            }
        }
    })
}

/// The estimated work, for [`run`], of `rows` rows with `columns` elements that take `nanoseconds` each.
#[must_use]
pub fn work(rows: usize, columns: usize, nanoseconds: u64) -> u64 {
    (rows as u64)
        .saturating_mul(columns as u64)
        .saturating_mul(nanoseconds)
}

/// Number of rows of a chunk for [`for_each_chunk`] if each row takes [`work`]`(1, columns, nanoseconds)`.
#[must_use]
pub fn rows_per_chunk(columns: usize, nanoseconds: u64) -> usize {
    (CHUNK_WORK / work(1, columns, nanoseconds).max(1)).max(1) as usize
}

/// Calls `body(scratch, index, chunk)` for every chunk, on as many threads as [`run`] was given if this thread
/// runs its kernel, or in a plain loop.
///
/// Chunks are handed out in order and each thread makes one `scratch`. A typical `chunks` is
/// `users.chunks(64).zip(output.chunks_mut(64 * width))`. Of several errors the one of the lowest chunk is
/// returned, whatever the number of threads; a raised interrupt ends the loop at the next chunk.
pub fn for_each_chunk<C: Send, S>(
    chunks: impl Iterator<Item = C> + Send,
    interrupt: &Interrupt,
    scratch: impl Fn() -> S + Sync,
    body: impl Fn(&mut S, usize, C) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let Some(pool) = HELPERS.with_borrow(Clone::clone) else {
        let mut scratch = scratch();
        for (index, chunk) in chunks.enumerate() {
            interrupt.check()?;
            body(&mut scratch, index, chunk)?;
        }
        return Ok(());
    };
    let queue = Mutex::new(chunks.enumerate());
    let failed_at = AtomicUsize::new(usize::MAX);
    let failures = Mutex::new(Vec::new());
    let take_chunks = || {
        let mut scratch = scratch();
        loop {
            let next = lock(&queue).next();
            let Some((index, chunk)) = next else { return };
            // Chunks below a failed one have been handed out already, and their threads finish them.
            if index > failed_at.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = interrupt
                .check()
                .and_then(|()| body(&mut scratch, index, chunk))
            {
                failed_at.fetch_min(index, Ordering::Relaxed);
                lock(&failures).push((index, error));
                return;
            }
        }
    };
    let helpers = pool.current_num_threads() - 1;
    let done = AtomicUsize::new(0);
    pool.in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| {
                take_chunks();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        take_chunks();
        let since = Instant::now();
        while done.load(Ordering::Relaxed) < helpers && since.elapsed() < AWAKE {
            std::hint::spin_loop();
        }
    });
    match failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_iter()
        .min_by_key(|failure| failure.0)
    {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Locks a mutex whose contents stay valid if another thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads [`for_each_chunk`] would use here.
pub(crate) fn current_threads() -> usize {
    HELPERS.with_borrow(|pool| pool.as_ref().map_or(1, |pool| pool.current_num_threads()))
}

/// A zeroed vector of `rows` times `columns` elements, or [`Error::OutOfMemory`].
pub(crate) fn allocate<T: Clone + Default>(rows: usize, columns: usize) -> Result<Vec<T>, Error> {
    let out_of_memory = || Error::OutOfMemory {
        elements: rows as u128 * columns as u128,
    };
    let elements = rows.checked_mul(columns).ok_or_else(out_of_memory)?;
    // `vec!` aborts when there is no memory, so ask first; but only `vec!` gets lazily zeroed pages, which
    // the kernels' threads then touch in parallel.
    Vec::<T>::new()
        .try_reserve_exact(elements)
        .map_err(|_| out_of_memory())?;
    Ok(vec![T::default(); elements])
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const MUCH: u64 = u64::MAX;

    /// Work for the calling thread alone, for it and its helpers, and for a pool.
    const EACH_WAY: [u64; 3] = [0, SHORT_WORK - 1, MUCH];

    #[test]
    fn chunks_are_all_done_on_any_number_of_threads() {
        for (threads, work) in [1, 2, 3, 8]
            .into_iter()
            .flat_map(|threads| EACH_WAY.map(|work| (threads, work)))
        {
            let mut output = vec![0; 10_007];
            run(
                threads,
                work,
                |interrupt| {
                    let chunks = output.chunks_mut(13);
                    for_each_chunk(
                        chunks,
                        interrupt,
                        || (),
                        |(), index, chunk| {
                            for (offset, value) in chunk.iter_mut().enumerate() {
                                *value = index * 13 + offset;
                            }
                            Ok(())
                        },
                    )
                },
                || true,
            )
            .unwrap();
            assert!(
                output
                    .iter()
                    .enumerate()
                    .all(|(index, &value)| index == value)
            );
        }
    }

    #[test]
    fn the_lowest_failing_chunk_is_reported() {
        let fail = |index: usize| Error::invalid("index", index, "another");
        for (threads, work) in [1, 2, 3, 8]
            .into_iter()
            .flat_map(|threads| EACH_WAY.map(|work| (threads, work)))
        {
            for _ in 0..50 {
                let result = run(
                    threads,
                    work,
                    |interrupt| {
                        for_each_chunk(
                            0..500,
                            interrupt,
                            || (),
                            |(), index, _| {
                                if index % 7 == 5 {
                                    Err(fail(index))
                                } else {
                                    Ok(())
                                }
                            },
                        )
                    },
                    || true,
                );
                assert_eq!(result, Err(fail(5)));
            }
        }
    }

    #[test]
    fn as_many_threads_as_asked_for_share_the_chunks() {
        for work in [SHORT_WORK - 1, MUCH] {
            let everyone = Barrier::new(3);
            let share = |interrupt: &Interrupt| {
                // Each chunk ends when three threads are at one.
                for_each_chunk(
                    0..3,
                    interrupt,
                    || (),
                    |(), _, _| {
                        everyone.wait();
                        Ok(())
                    },
                )?;
                Ok((current_threads(), std::thread::current().id()))
            };
            let (threads, ran_on) = run(3, work, share, || true).unwrap();
            assert_eq!(threads, 3);
            assert_eq!(ran_on == std::thread::current().id(), work < SHORT_WORK);
            assert_eq!(current_threads(), 1);
        }
    }

    #[test]
    fn a_panic_gets_to_the_caller_and_leaves_no_helpers_behind() {
        for work in EACH_WAY {
            let chunk = |(): &mut (), index, _| {
                assert_ne!(index, 7, "the seventh");
                Ok(())
            };
            let kernel = |interrupt: &Interrupt| for_each_chunk(0..100, interrupt, || (), chunk);
            let caught = std::panic::catch_unwind(|| run(2, work, kernel, || true));
            assert!(caught.is_err());
            assert_eq!(current_threads(), 1);
            let after = run(
                2,
                work,
                |interrupt| for_each_chunk(0..7, interrupt, || (), chunk),
                || true,
            );
            assert_eq!(after, Ok(()));
        }
    }

    #[test]
    fn the_waiting_thread_can_interrupt() {
        let endless = |interrupt: &Interrupt| {
            for_each_chunk(
                std::iter::repeat(()),
                interrupt,
                || (),
                |(), _, ()| {
                    std::thread::sleep(Duration::from_millis(1));
                    Ok(())
                },
            )
        };
        assert_eq!(run(2, MUCH, endless, || false), Err(Error::Interrupted));
    }

    #[test]
    fn pools_are_shared() {
        let first = pool(2).unwrap();
        assert!(Arc::ptr_eq(&first, &pool(2).unwrap()));
        assert!(!Arc::ptr_eq(&first, &pool(3).unwrap()));
    }

    #[test]
    fn a_thread_count_out_of_range_is_an_error() {
        assert_eq!(thread_count(Some(5)), Ok(5));
        assert!(matches!(
            thread_count(Some(0)),
            Err(Error::InvalidArgument { .. })
        ));
        assert!(matches!(
            thread_count(Some(1 << 40)),
            Err(Error::InvalidArgument { .. })
        ));
    }
}
