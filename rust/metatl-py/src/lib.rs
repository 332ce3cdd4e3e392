//! The Python module `metatl._metatl`: one thin wrapper file per file of `metatl-core`.
//!
//! A wrapper checks and borrows its arrays ([`arrays`]), detaches from the interpreter and runs the kernel
//! ([`parallel`]), and converts the result back. Nothing else happens here.

mod arrays;
mod batches;
mod bootstrap;
mod candidates;
mod episodes;
mod error;
mod grouping;
mod interactions;
mod item_table;
mod item_walks;
mod metrics;
mod negatives;
mod parallel;
mod randomisation;
mod ranking;
mod raw_ids;
mod rng;
mod sequences;
mod transitions;

use pyo3::prelude::*;

/// Kernels of metatl.
#[pymodule]
mod _metatl {
    // In the order of the files: batches, bootstrap, candidates, episodes, grouping, interactions, item_table, item_walks,
    // metrics, negatives, parallel, randomisation, ranking, raw_ids, rng, sequences, transitions.

    #[pymodule_export]
    use crate::batches::{BatchPrefetcher, BatchSampler};
    #[pymodule_export]
    use crate::bootstrap::{bootstrap_group_means, bootstrap_means};
    #[pymodule_export]
    use crate::candidates::sample_candidates;
    #[pymodule_export]
    use crate::episodes::EpisodeSampler;
    #[pymodule_export]
    use crate::grouping::group_by_user;
    #[pymodule_export]
    use crate::interactions::Interactions;
    #[pymodule_export]
    use crate::item_table::{PanelTable, round_to_bf16, round_to_int8};
    #[pymodule_export]
    use crate::item_walks::ItemWalks;
    #[pymodule_export]
    use crate::metrics::{ranks, user_metrics};
    #[pymodule_export]
    use crate::negatives::sample_support_negatives;
    #[pymodule_export]
    use crate::parallel::available_threads;
    #[pymodule_export]
    use crate::randomisation::sign_flip_counts;
    #[pymodule_export]
    use crate::ranking::{
        rank_candidates, rank_catalogue, rank_score_matrix, rank_scores, top_n, top_n_of,
        top_n_scores,
    };
    #[pymodule_export]
    use crate::raw_ids::look_up_ids;
    #[pymodule_export]
    use crate::rng::random_order;
    #[pymodule_export]
    use crate::sequences::SequenceSampler;
    #[pymodule_export]
    use crate::transitions::{encode_transitions, tabulate_transitions};
}
