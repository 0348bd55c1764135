"""What secure aggregation does not go together with, each in a sentence with what replaces it."""

from typing import Any

import pytest

from fl_ppseg.config.loading import dump_config, load_config
from fl_ppseg.system.errors import InputError


def loaded(**values: Any) -> Any:
    given = {"federation.secure_aggregation": True, "arms": ["plain"]} | values
    return load_config(overrides=given)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"federation.max_relative_norm": 2.0}, "norms that max_relative_norm looks at; leave it"),
        ({"federation.max_update_norm": 2.0}, "norms that max_update_norm looks at; leave it out"),
        ({"federation.max_norm_ratio": 2.0}, "norms that max_norm_ratio looks at; leave it out"),
        ({"federation.aggregation": "median"}, "aggregation median compares; use mean"),
        ({"federation.max_share": 0.75}, "to max_share; use weighting equal"),
        (
            {"federation.privacy": {"noise_multiplier": 1, "clipping_norm": 1}},
            "single updates that privacy clips; use the noise that nodes add themselves",
        ),
        (
            {"arms": ["plain", "local-only"]},
            r"arm local-only \(local-only\) adds nothing up; leave",
        ),
        ({"arms": ["centralised"]}, r"arm centralised \(centralised\) adds nothing up"),
        ({"model.norm": "batch"}, "batch statistics have no bound to clip them to; set model.norm"),
        (
            {"training.optimizer": "sgd", "training.gradient_clip": 0},
            "moves weights without a bound; set federation.update_bound",
        ),
        ({"clients": 2}, r"adds up 3 clients or more \(least_cohort\), and a round asks 2"),
        (
            {"federation.secure_aggregation": False, "federation.update_bound": 0.1},
            "update_bound is only used with secure_aggregation",
        ),
        (
            {"federation.least_cohort": 1},
            "least_cohort: Input should be greater than or equal to 2",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        loaded(**values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"training.proximal_mu": 0.1},
        {"federation.strategy": "fedadam", "federation.weighting": "equal"},
        {"federation.max_share": 1.0, "federation.max_relative_norm": None},
        {
            "training.optimizer": "sgd",
            "training.gradient_clip": 0,
            "federation.update_bound": 0.1,
        },
    ],
)
def test_what_does_is_taken_and_read_back(values: dict[str, Any], tmp_path: Any) -> None:
    config = loaded(**values)
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config))
    assert load_config(file) == config
