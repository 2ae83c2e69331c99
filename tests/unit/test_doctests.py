"""The examples in docstrings run, and the most wanted ones exist."""

import doctest
import importlib

import pytest
from jouleline.measure.raw import markers

# Module -> names whose docstring must have an example.
EXAMPLES = {
    "jouleline.commands.options": ("json_object",),
    "jouleline.schemas.model": ("headline",),
    "jouleline.measure.raw.markers": ("region",),
    "jouleline.model.fit.fitting": ("fit_split",),
    "jouleline.model.fit.configurations": ("predict_table",),
}


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_run(module, monkeypatch, tmp_path):
    monkeypatch.setenv(markers.ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr(markers, "_state", markers._State())
    loaded = importlib.import_module(module)
    found = {test.name.removeprefix(module + "."): test for test in doctest.DocTestFinder().find(loaded)}
    for name in EXAMPLES[module]:
        assert found[name].examples, f"{module}.{name} has no example"
    failed, tried = doctest.testmod(loaded)
    assert tried and not failed
