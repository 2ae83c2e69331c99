"""The models by name."""

from collections.abc import Callable

from jouleline.errors import UserError
from jouleline.model.base import Model
from jouleline.model.laws import baselines
from jouleline.model.laws.boosting import GradientBoosting
from jouleline.model.laws.count_law import CountLaw
from jouleline.model.laws.gaussian import GaussianProcess
from jouleline.model.laws.hybrid import Hybrid
from jouleline.model.laws.paper import Paper
from jouleline.model.roofline.fit import Roofline

LAWS: dict[str, Callable[[], Model]] = {
    "paper": Paper,
    "roofline": Roofline,
    "hybrid": Hybrid,
    "constant": baselines.constant,
    "flops": baselines.log_flop,
    "flops_linear": lambda: baselines.Linear(memory=False),
    "additive": lambda: baselines.Linear(memory=True),
    "six_nd": baselines.six_parameters_tokens,
    "device_seconds": lambda: baselines.PowerTimesTime(limit=False, measured_time=False),
    "device_seconds_measured": lambda: baselines.PowerTimesTime(limit=False, measured_time=True),
    "tdp_time": lambda: baselines.PowerTimesTime(limit=True, measured_time=False),
    "tdp_time_measured": lambda: baselines.PowerTimesTime(limit=True, measured_time=True),
    "power_law": baselines.power_law,
    "gradient_boosting": GradientBoosting,
    "gaussian_process": GaussianProcess,
    "count_law": CountLaw,
    "count_law_phi_one": lambda: CountLaw(phi=1.0),
    "phi_one": lambda: Roofline(("no_dynamic",)),
    "phi_zero": lambda: Roofline(("no_static",)),
    "roofline_no_memory": lambda: Roofline(("no_memory",)),
    "roofline_no_communication": lambda: Roofline(("no_communication",)),
    "roofline_hard_max": lambda: Roofline(("hard_max",)),
    "roofline_no_host": lambda: Roofline(("no_host",)),
    "roofline_no_saturation": lambda: Roofline(("no_saturation",)),
    "roofline_no_priors": lambda: Roofline(("no_priors",)),
    "roofline_energy_only": lambda: Roofline(("energy_only",)),
    "roofline_paper_proxies": lambda: Roofline(("paper_proxies",)),
}

MODELS = tuple(LAWS)

BASELINES = {
    *("constant", "flops", "flops_linear", "additive", "six_nd", "power_law"),
    *("device_seconds", "device_seconds_measured", "tdp_time", "tdp_time_measured"),
}
"""The models that the others are compared with. They are scored however wide their intervals are."""


def make(name: str) -> Model:
    """The model of that name. Raises UserError for an unknown name."""
    if name not in LAWS:
        raise UserError(f"there is no model {name}; use one of {', '.join(LAWS)}")
    return LAWS[name]()
