//! The limits of this machine: cycles, vector operations, and reads of a table, in order and row by row.

#![allow(unsafe_code)] // vector instructions, of which the compiler makes no others, and a prefetch

use std::hint::black_box;
use std::num::NonZero;
use std::time::Instant;

use metatl_core::simd::Level;

use crate::world::{DIMENSION, NUM_ITEMS, World};

/// The most of `rounds` measurements of units a second.
fn fastest(rounds: usize, units: f64, work: impl Fn()) -> f64 {
    let seconds = (0..rounds).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed().as_secs_f64()
    });
    units / seconds.fold(f64::INFINITY, f64::min)
}

/// Cycles a second, from a chain of multiplications that each wait for the one before: 3 cycles each on every
/// 64-bit x86 processor of the last ten years and on Arm's large cores.
fn cycles_per_second() -> f64 {
    const LINKS: u64 = 5_000_000;
    3.0 * fastest(25, LINKS as f64, || {
        let mut product = black_box(3_u64);
        for _ in 0..LINKS {
            product = black_box(product.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        black_box(product);
    })
}

/// Bytes a second that `threads` threads read from a table of the size of [`World::table`], each all of it.
fn bytes_per_second(table: &[u64], threads: usize) -> f64 {
    const TIMES: usize = 8;
    let read = || {
        for _ in 0..TIMES {
            // Sixteen sums, so that none waits for the one before.
            let mut sums = [0_u64; 16];
            for part in black_box(table).as_chunks::<16>().0 {
                for (sum, value) in sums.iter_mut().zip(part) {
                    *sum ^= value;
                }
            }
            black_box(sums);
        }
    };
    let bytes = size_of_val(table) * TIMES * threads;
    fastest(300, bytes as f64, || {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(read);
            }
        });
    })
}

/// Bytes a second that `threads` threads read from the rows of random lists, as rankings of candidates do: each its
/// share of the lists, and the rows of a few items ahead are prefetched.
fn row_bytes_per_second(world: &World, threads: usize) -> f64 {
    const AHEAD: usize = 8;
    let rows = world.table.as_chunks::<DIMENSION>().0;
    let read = |part: &[i64]| {
        let mut sums = [0_u32; 16];
        for (position, &item) in part.iter().enumerate() {
            if let Some(&later) = part.get(position + AHEAD) {
                prefetch(&rows[later as usize]);
            }
            for numbers in rows[item as usize].chunks(16) {
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    *sum ^= number.to_bits();
                }
            }
        }
        black_box(sums);
    };
    let bytes = world.candidates.len() * DIMENSION * size_of::<f32>();
    let each = world.candidates.len().div_ceil(threads);
    fastest(200, bytes as f64, || {
        std::thread::scope(|scope| {
            for part in world.candidates.chunks(each) {
                scope.spawn(|| read(part));
            }
        });
    })
}

fn prefetch(row: &[f32; DIMENSION]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of an address that exists.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    black_box(row);
}

/// Registers of sums: enough to hide the latency of a multiplication and addition, few enough for all levels.
const SUMS: usize = 12;

/// Multiplications and additions a second that `threads` threads compute in vector registers, without a load.
fn operations_per_second(level: Level, threads: usize) -> f64 {
    const TIMES: usize = 500_000;
    let (run, lanes): (fn(usize), usize) = match level.to_string().as_str() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this processor has the level.
        "avx512" => (|times| unsafe { multiply_add_avx512(times) }, 16),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        "avx2" => (|times| unsafe { multiply_add_avx2(times) }, 8),
        _ => (multiply_add, 4),
    };
    let operations = 2 * TIMES * SUMS * lanes * threads;
    fastest(200, operations as f64, || {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| run(TIMES));
            }
        });
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn multiply_add_avx512(times: usize) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let (factor, term) = black_box((_mm512_set1_ps(0.5), _mm512_set1_ps(0.5)));
    let mut sums = [term; SUMS];
    for _ in 0..times {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(factor, *sum, term);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_add_avx2(times: usize) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let (factor, term) = black_box((_mm256_set1_ps(0.5), _mm256_set1_ps(0.5)));
    let mut sums = [term; SUMS];
    for _ in 0..times {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(factor, *sum, term);
        }
    }
    black_box(sums);
}

/// In vectors of four, where the compiler has such instructions.
fn multiply_add(times: usize) {
    let (factor, term) = black_box(([0.5_f32; 4], [0.5_f32; 4]));
    let mut sums = [term; SUMS];
    for _ in 0..times {
        for sum in &mut sums {
            *sum = std::array::from_fn(|lane| factor[lane] * sum[lane] + term[lane]);
        }
    }
    black_box(sums);
}

/// Prints the limits as one line of JSON.
pub(crate) fn print(world: &World) {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let table = vec![1_u64; NUM_ITEMS * DIMENSION / 2];
    let level = Level::fastest();
    println!(
        "{{\"threads\": {threads}, \"level\": \"{level}\", \"cycles_per_second\": {:.4e}, \
         \"operations_per_second\": {:.4e}, \
         \"bytes_per_second\": {:.4e}, \"bytes_per_second_on_one_thread\": {:.4e}, \
         \"row_bytes_per_second\": {:.4e}, \"row_bytes_per_second_on_one_thread\": {:.4e}}}",
        cycles_per_second(),
        operations_per_second(level, threads),
        bytes_per_second(&table, threads),
        bytes_per_second(&table, 1),
        row_bytes_per_second(world, threads),
        row_bytes_per_second(world, 1),
    );
}
