"""The predictions table: what each model predicted for each held-out run, beside what was measured."""

from collections.abc import Iterable

from jouleline.schemas import Column, Table

HEADLINE = "roofline"
"""The model that a campaign is about where it does not say: its error is the headline, its scores meet the gates."""


def headline(fitted: Iterable[str], wanted: str | None = None) -> str | None:
    """The headline model among the `fitted`, chosen before any score is known: the `wanted` one, else the default if it
    is fitted, else the first. None where nothing is fitted and nothing is wanted.

    >>> headline(["hybrid", "roofline"]), headline(["hybrid", "paper"]), headline(["hybrid"], "paper")
    ('roofline', 'hybrid', 'paper')
    """
    names = list(fitted)
    return wanted or (HEADLINE if HEADLINE in names else next(iter(names), None))


_C = Column

PREDICTIONS = Table(
    "predictions",
    "One row per held-out run, fold, model and efficiency mode: the prediction, its interval, and the measurement.",
    (
        _C("run_id", "string", "", "Run that was predicted"),
        _C("family", "string", "", "Workload and device of the run"),
        _C("fold", "string", "", "Fold of the split in which the run was held out"),
        _C("model", "string", "", "Name of the model"),
        _C("split", "string", "", "Name of the split; `all` is in sample"),
        _C(
            "efficiency_mode",
            "string",
            "",
            "measured (after the run), modelled, parametric; null: no efficiency in the model",
        ),
        _C(
            "post_run",
            "bool",
            "",
            "Uses something measured on the run itself: an upper bound, not a prediction",
        ),
        _C("energy_source", "string", "", "Source of the measured energy, as in the runs table"),
        _C("time_s", "float64", "s", "Measured length of the window"),
        _C("energy_j", "float64", "J", "Measured energy of the window"),
        _C(
            "predicted_time_s",
            "float64",
            "s",
            "Predicted length of the window; null where the model has no law of time",
        ),
        _C("predicted_energy_j", "float64", "J", "Predicted energy of the window"),
        *(
            _C(f"energy_{side}{level}_j", "float64", "J", f"{name} end of the {level} % prediction interval")
            for level in (80, 95)
            for side, name in (("lo", "Lower"), ("hi", "Upper"))
        ),
        *(
            _C(
                f"time_{side}{level}_s",
                "float64",
                "s",
                f"{name} end of the {level} % prediction interval of the time",
            )
            for level in (80, 95)
            for side, name in (("lo", "Lower"), ("hi", "Upper"))
        ),
        _C("extrapolates", "bool", "", "The run lies outside the range of the training rows"),
        _C("extrapolation_axes", "string", "", "Along which axes, separated by commas"),
        _C(
            "identified",
            "bool",
            "",
            "The training rows identify this prediction; otherwise it does not count",
        ),
        _C("reason", "string", "", "Why a prediction is not identified"),
    ),
)
