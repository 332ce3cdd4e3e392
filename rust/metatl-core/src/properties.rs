//! How the crate's properties are tested.

/// Tests each property with 1,000 cases and, in an ignored test of the same name in `mod slow`, with 100,000:
/// `cargo test --release -- --ignored`.
macro_rules! properties {
    ($(fn $name:ident($($arguments:tt)*) $body:block)*) => {
        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1_000))]
            $(#[test] fn $name($($arguments)*) $body)*
        }

        mod slow {
            use super::*;

            proptest::proptest! {
                #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100_000))]
                $(#[test] #[ignore = "100,000 cases"] fn $name($($arguments)*) $body)*
            }
        }
    };
}
