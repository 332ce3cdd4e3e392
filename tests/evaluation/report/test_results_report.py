"""The shape of `results.json`, its schema, and the table."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import jsonschema
import pytest

from metatl.evaluation.report.results import (
    BootstrapReport,
    CandidatesReport,
    DatasetReport,
    EstimateReport,
    MetricsReport,
    ModelReport,
    ProtocolReport,
    Results,
    results_schema,
    write_results,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def results():
    return Results(
        metrics=MetricsReport(
            sampled={"MRR": EstimateReport(value=0.31, low=0.3, high=0.32, standard_error=0.005)},
            full={"MRR": EstimateReport(value=0.05, low=0.04, high=0.06)},
        ),
        candidates=CandidatesReport(sha256="00" * 32, kind="uniform", n=100, seed=0),
        dataset=DatasetReport(
            source="wines",
            fingerprint="11" * 32,
            users=10,
            items=20,
            interactions=200,
            tie_share=0.25,
            train_users=6,
            test_users=3,
            catalogue=18,
        ),
        protocol=ProtocolReport(
            k=3,
            cutoff=datetime(2014, 1, 1, tzinfo=timezone.utc),
            min_item_count=10,
            min_train_rows=5,
            unseen_items="drop",
            validation_share=0.3,
            split_seed=0,
            split_fingerprint="22" * 32,
            ties="worst",
            support_negatives_seed=0,
            bootstrap=BootstrapReport(resamples=1000, confidence=0.95, seed=0),
        ),
        model=ModelReport(name="metatl", preset="tuned", config={"dim": 8}, seed=0, run="runs/one"),
        timings={"read": 0.1, "rank": 0.2},
        metatl_version="0.1.0",
    )


def test_the_schema_file_is_that_of_the_code():
    assert (ROOT / "docs/results.schema.json").read_text(encoding="utf-8") == results_schema()


def test_results_are_valid_under_the_schema(results, tmp_path):
    schema = json.loads(results_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    path = tmp_path / "results.json"
    write_results(path, results)
    content = json.loads(path.read_text())
    jsonschema.validate(content, schema)
    found = content["metrics"]["sampled"]["MRR"]
    assert found == {"value": 0.31, "low": 0.3, "high": 0.32, "standard_error": 0.005}
    assert set(content) == {
        "metrics", "ties", "lists", "users", "slices", "notes", "candidates",
        "dataset", "protocol", "model", "timings", "metatl_version",
    }  # fmt: skip
    assert Results.model_validate(content) == results
    # A run says what it was fitted on; scores of somebody else say where they come from.
    del content["model"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)
