"""The simple laws that every report shows next to the models. Each is fitted on the same folds."""

from collections.abc import Callable

import numpy as np

from jouleline.model.base import Context, Prediction, State, nothing
from jouleline.model.features import Data
from jouleline.model.laws import linear


def _proportional(log_work: np.ndarray) -> linear.Design:
    """log target = constant + log work."""
    return linear.Design({}, {}, log_work)


def _per_token(data: Data) -> tuple[linear.Design, linear.Design]:
    return _proportional(np.log(data.tokens)), _proportional(np.log(data.tokens / data.devices))


def _six_parameters_tokens(data: Data) -> tuple[linear.Design, linear.Design]:
    work = 6 * data.proxies["parameters"] * data.tokens
    return _proportional(np.log(work)), _proportional(np.log(work / data.devices))


def _log_flop(data: Data) -> tuple[linear.Design, linear.Design]:
    return linear.Design({"log FLOP": np.log(data.flop * data.devices)}), linear.Design(
        {"log FLOP": np.log(data.flop)}
    )


def _power_law(data: Data) -> tuple[linear.Design, linear.Design]:
    """Every raw hyper-parameter, with the log of each size. A parameter that does not vary drops out, and the training
    rows cannot reach other values of it."""
    sizes = (
        "layers",
        "hidden",
        "heads",
        "intermediate",
        "seq_len",
        "micro_batch",
        "grad_accum",
        "device_count",
    )
    numbers = {f"log {name}": np.log(data.columns[name].astype(float)) for name in sizes}
    categories = {name: data.columns[name] for name in ("device", "precision", "attention", "task")}
    categories |= {"strategy": data.strategy, "variant": data.variant}
    law = linear.Design(numbers, categories)
    return law, law


class LogLaw:
    """Two laws that are linear in log space, one of energy and one of time. `designs` gives their columns."""

    def __init__(self, designs: Callable[[Data], tuple[linear.Design, linear.Design]]):
        self.designs = designs

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`."""
        of_energy, of_time = self.designs(data)
        log_energy, log_time = np.log(data.step_energy_j), np.log(data.step_time_s)
        return [
            join(linear.fit(of_energy, log_energy, row), linear.fit(of_time, log_time, row))
            for row in weights
        ]

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`."""
        if "energy" not in state:
            return [nothing(data, state["reason"])]
        of_energy, of_time = self.designs(data)
        log_energy, known = linear.predict(state["energy"], of_energy, len(data))
        log_time, _ = linear.predict(state["time"], of_time, len(data))
        reason = state["reason"] if known.all() else "the training rows do not reach this row"
        return [Prediction(np.exp(log_time), np.exp(log_energy), known & state["identified"], reason)]


def join(energy: State, time: State) -> State:
    """One state of two linear laws. The parameters of the law of time carry the prefix "time: "."""
    parameters = dict(energy["parameters"])
    parameters |= {f"time: {name}": entry for name, entry in time["parameters"].items()}
    slim = [
        {key: value for key, value in law.items() if key not in {"parameters", "diagnostics"}}
        for law in (energy, time)
    ]
    return {
        "identified": energy["identified"],
        "reason": energy["reason"],
        "parameters": parameters,
        "diagnostics": energy["diagnostics"],
        "energy": slim[0],
        "time": slim[1],
    }


class Linear:
    """E = E0 + e_c FLOP (+ e_m byte), and the same for time per device. Least squares of the relative error.

    With `memory` this is the additive form that the paper gives next to its power law.
    """

    def __init__(self, memory: bool):
        self.memory = memory

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`."""
        energy, time = data.step_energy_j, data.step_time_s
        total, each = self._designs(data)
        states = []
        for row in weights:
            states.append(
                join(linear.fit(total, energy, row / energy**2), linear.fit(each, time, row / time**2))
            )
        return states

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`. A prediction that is not positive counts as not identified."""
        if "energy" not in state:
            return [nothing(data, state["reason"])]
        total, each = self._designs(data)
        energy, known = linear.predict(state["energy"], total, len(data))
        time, _ = linear.predict(state["time"], each, len(data))
        known &= np.nan_to_num(energy) > 0
        reason = state["reason"] if known.all() else "the line gives no positive energy here"
        time = np.where(np.nan_to_num(time) > 0, time, np.nan)
        return [Prediction(time, np.where(known, energy, np.nan), known & state["identified"], reason)]

    def _designs(self, data: Data) -> tuple[linear.Design, linear.Design]:
        work = {"FLOP": data.flop} | ({"byte": data.byte} if self.memory else {})
        return linear.Design({name: each * data.devices for name, each in work.items()}), linear.Design(work)


class PowerTimesTime:
    """E = power per device x devices x time. Time comes from the log-linear law in FLOP, or is measured (labelled
    post-run).

    With `limit` the power is the device's power limit. Otherwise it is the geometric mean power of the training rows.
    """

    def __init__(self, limit: bool, measured_time: bool):
        self.limit, self.measured_time = limit, measured_time
        self._time = LogLaw(_log_flop)

    def fit(
        self, data: Data, weights: np.ndarray, context: Context, warm: list[State] | None = None
    ) -> list[State]:
        """See `Model.fit`."""
        states = self._time.fit(data, weights, context)
        power = np.log(data.step_energy_j / data.step_time_s)
        design = _proportional(np.log(data.devices))
        return [
            state | {"power": linear.fit(design, power, row)}
            for state, row in zip(states, weights, strict=True)
        ]

    def predict(self, state: State, data: Data, context: Context) -> list[Prediction]:
        """See `Model.predict`."""
        labels = {"post_run": self.measured_time}
        if "power" not in state:
            return [nothing(data, state["reason"], **labels)]
        time = (
            data.step_time_s
            if self.measured_time
            else self._time.predict(state, data, context)[0].step_time_s
        )
        if self.limit:
            limits = {
                name: context.machines.get(name, "power_limit_w") for name in set(data.columns["device"])
            }
            each = np.array([limits[name] or np.nan for name in data.columns["device"]])
            power, reason = each * data.devices, "the device's power limit is not known"
        else:
            log_power, _ = linear.predict(state["power"], _proportional(np.log(data.devices)), len(data))
            power, reason = np.exp(log_power), state["reason"]
        energy = power * time
        known = np.isfinite(energy) & bool(state["identified"])
        own_time = np.full(len(data), np.nan) if self.measured_time else time
        return [Prediction(own_time, energy, known, None if known.all() else reason, **labels)]


def constant() -> LogLaw:
    """Constant J per token (and device-seconds per token)."""
    return LogLaw(_per_token)


def six_parameters_tokens() -> LogLaw:
    """6 x parameters x tokens x constant."""
    return LogLaw(_six_parameters_tokens)


def log_flop() -> LogLaw:
    """Log-linear in FLOP."""
    return LogLaw(_log_flop)


def power_law() -> LogLaw:
    """Log power law in raw hyper-parameters."""
    return LogLaw(_power_law)
