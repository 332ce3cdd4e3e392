//! Rounds an item table to fewer bits.

use std::sync::atomic::{AtomicU64, Ordering};

use super::inputs::Matrix;
use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk, rows_per_chunk};

/// Numbers that a thread rounds in a nanosecond, at least.
pub const NUMBERS_PER_NANOSECOND: u64 = 1;

/// The largest integer of [`round_to_int8`].
const LARGEST_CODE: f32 = 127.0;

/// The bits of the absolute value of a number. They have the order of the absolute values; NaN come last.
fn size_bits(number: f32) -> u32 {
    number.to_bits() & 0x7FFF_FFFF
}

/// Absolute values from this one on are infinite in bfloat16.
const INFINITE_IN_BF16: u32 = 0x7F7F_8000;

/// Absolute values from this one on are infinite after rounding to a multiple of a scale.
const INFINITE_IN_INT8: u32 = f32::MAX.to_bits();

/// Counts of the numbers that cannot be rounded.
#[derive(Default)]
struct Refused {
    nan: AtomicU64,
    infinite: AtomicU64,
}

impl Refused {
    /// Counts these numbers in `values`. Absolute values from `infinite` on are infinite after rounding.
    fn add(&self, values: &[f32], infinite: u32) {
        let nan = values.iter().filter(|value| value.is_nan()).count() as u64;
        let large = |value: &&f32| size_bits(**value) >= infinite;
        let large = values.iter().filter(large).count() as u64;
        self.nan.fetch_add(nan, Ordering::Relaxed);
        // Another thread may write to the values between the two counts.
        self.infinite
            .fetch_add(large.saturating_sub(nan), Ordering::Relaxed);
    }

    fn check(self) -> Result<(), Error> {
        let argument = "item_table";
        match (self.nan.into_inner(), self.infinite.into_inner()) {
            (0, 0) => Ok(()),
            (0, count) => Err(Error::invalid(
                argument,
                format_args!("{count} numbers that are infinite, or would be once rounded"),
                "finite ones",
            )),
            (count, _) => Err(Error::NotANumber { argument, count }),
        }
    }
}

/// Rounds the numbers of a table to bfloat16, to nearest and ties to even. The result is the upper halves of `f32`.
pub fn round_to_bf16(item_table: Matrix, interrupt: &Interrupt) -> Result<Vec<u16>, Error> {
    let columns = item_table.columns().max(1);
    let mut rounded: Vec<u16> = allocate(item_table.rows(), item_table.columns())?;
    let refused = Refused::default();
    let numbers = rows_per_chunk(columns, 1) * columns;
    let chunks = item_table
        .values()
        .chunks(numbers)
        .zip(rounded.chunks_mut(numbers));
    for_each_chunk(
        chunks,
        interrupt,
        || (),
        |(), _, (values, rounded)| {
            let mut largest = 0;
            for (rounded, &value) in rounded.iter_mut().zip(values) {
                let bits = value.to_bits();
                // A carry into the exponent is correct.
                *rounded = (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16;
                largest = largest.max(size_bits(value));
            }
            if largest >= INFINITE_IN_BF16 {
                refused.add(values, INFINITE_IN_BF16);
            }
            Ok(())
        },
    )?;
    refused.check()?;
    Ok(rounded)
}

/// Rounds each row of a table to integers from −127 to 127 and a scale that they are multiplied by: the largest
/// absolute value of the row over 127. Rounds to nearest, ties to even.
pub fn round_to_int8(
    item_table: Matrix,
    interrupt: &Interrupt,
) -> Result<(Vec<i8>, Vec<f32>), Error> {
    let columns = item_table.columns().max(1);
    let mut codes: Vec<i8> = allocate(item_table.rows(), item_table.columns())?;
    let mut scales: Vec<f32> = allocate(item_table.rows(), 1)?;
    if item_table.columns() == 0 {
        scales.fill(f32::MIN_POSITIVE);
    }
    let refused = Refused::default();
    let rows = rows_per_chunk(columns, 1);
    let chunks = item_table
        .values()
        .chunks(rows * columns)
        .zip(codes.chunks_mut(rows * columns))
        .zip(scales.chunks_mut(rows));
    for_each_chunk(
        chunks,
        interrupt,
        || (),
        |(), _, ((values, codes), scales)| {
            let rows = values.chunks(columns).zip(codes.chunks_mut(columns));
            for ((values, codes), scale) in rows.zip(scales) {
                *scale = round_row(values, codes);
                if !(LARGEST_CODE * *scale).is_finite() {
                    refused.add(values, INFINITE_IN_INT8);
                }
            }
            Ok(())
        },
    )?;
    refused.check()?;
    Ok((codes, scales))
}

/// Rounds one row and returns its scale, which is not finite if a number of the row is not finite.
fn round_row(values: &[f32], codes: &mut [i8]) -> f32 {
    // Added to this, a number below 2²² leaves its nearest integer in the lower bits.
    const SHIFT: f32 = 12_582_912.0;
    let largest = values.iter().map(|&value| size_bits(value)).max();
    let scale = f32::from_bits(largest.unwrap_or(0)) / LARGEST_CODE;
    // Smaller scales would have fewer digits. Not `max`, which would hide a NaN.
    let scale = if scale < f32::MIN_POSITIVE {
        f32::MIN_POSITIVE
    } else {
        scale
    };
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value / scale + SHIFT).to_bits() as i8;
    }
    scale
}
