"""Conversions between numpy and Arrow by buffers give the same as pyarrow's own."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from jouleline.measure.raw.arrow import array, numbers, pick, strings


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.int64(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("values", [[1, 2, 3], [1.0, None, 3.0], [None, None], [np.nan, 7.0], []])
def test_numbers_become_the_array_that_pyarrow_makes(kind, values):
    expected = pa.array([None if v is None or v != v else int(v) for v in values], pa.int64()).cast(kind)
    assert array(values, kind).equals(expected)


def test_strings():
    assert strings(["window", "", "größe"]).equals(pa.array(["window", "", "größe"]))
    assert strings([]).equals(pa.array([], pa.string()))


def test_rows_are_picked_as_take_does():
    random = np.random.default_rng(0)
    whole = pa.table(
        {
            "a": pa.array(range(100), pa.int32()),
            "b": pa.array([None if k % 7 == 0 else k for k in range(100)], pa.float64()),
            "c": pa.nulls(100, pa.int64()),
        }
    )
    # Chunks with an offset, with nulls and without.
    table = pa.concat_tables([whole.slice(3, 20), whole.slice(1, 5), whole.slice(57)])
    rows = random.permutation(table.num_rows)[:50]
    assert pick(table, rows).equals(table.take(pa.array(rows)).combine_chunks())
    assert pick(table, np.array([], int)).num_rows == 0
    assert numbers(table["a"]).tolist() == table["a"].to_pylist()


def test_pandas_is_not_imported():
    code = (
        "import sys, numpy, pyarrow\n"
        "from jouleline.measure.raw.arrow import array, pick\n"
        "table = pyarrow.Table.from_arrays([array([1, None], pyarrow.int32())], names=['a'])\n"
        "pick(table, numpy.array([1, 0]))\n"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
