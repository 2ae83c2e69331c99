"""Which build of torch computes where, told from names and numbers alone."""

import pytest
from jouleline.measure.node.torch_build import computes_on, driver_problem, kernel_problem, problems

CU130 = {
    "version": "2.13.0+cu130",
    "cuda": "13.0",
    "arch": ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
}
CU126 = {
    "version": "2.7.1+cu126",
    "cuda": "12.6",
    "arch": ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"],
}
CPU = {"version": "2.13.0+cpu", "cuda": None, "arch": []}


@pytest.mark.parametrize(
    ("arch", "capability", "computes"),
    [
        (["sm_80"], "8.0", True),
        (["sm_80"], "8.9", True),
        (["sm_86"], "8.0", False),
        (["sm_80"], "9.0", False),
        (["sm_90"], "9.0", True),
        (["sm_90a"], "9.0", True),
        (["sm_100a"], "10.3", False),
        (["sm_100"], "10.3", True),
        (["sm_75"], "7.0", False),
        (["compute_80"], "9.0", True),
        (["compute_90"], "8.0", False),
        (["sm_120"], "12.0", True),
        ([], "9.0", False),
    ],
)
def test_kernels_run_within_a_major_version_and_ptx_from_its_version_on(arch, capability, computes):
    assert computes_on(arch, capability) is computes


@pytest.mark.parametrize(
    ("build", "driver", "driver_cuda", "remedy"),
    [
        (CU130, "580.65.06", 13000, None),
        (CU130, "590.00", 14000, None),
        (CU130, "550.54.14", 12040, "TORCH=cuda126"),
        (CU130, "470.82.01", 11040, "580.65.06"),
        (CU126, "525.60.13", 12000, None),
        (CU126, "580.65.06", 13000, None),
        (CU126, "470.82.01", 11040, "525.60.13"),
        (CU130, None, None, None),
        (CPU, "580.65.06", 13000, None),
    ],
)
def test_the_driver_serves_a_runtime_of_its_major_version(build, driver, driver_cuda, remedy):
    problem = driver_problem(build, driver, driver_cuda)
    assert problem is None if remedy is None else remedy in problem


@pytest.mark.parametrize(
    ("build", "capability", "remedy"),
    [
        (CU130, "9.0", None),
        (CU130, "7.0", "make setup TORCH=cuda126"),
        (CU126, "7.0", None),
        (CU126, "10.0", "make setup TORCH=cuda"),
        (CU130, "3.5", "TORCH=cuda126"),
        (CU130, None, None),
        (CPU, "9.0", None),
    ],
)
def test_a_gpu_without_kernels_is_named_with_the_build_that_has_them(build, capability, remedy):
    problem = kernel_problem(build, "a GPU", capability)
    assert problem is None if remedy is None else problem.endswith(remedy) or remedy in problem


def test_all_problems_are_told_and_each_kind_of_gpu_once():
    found = list(problems(CU130, "550.54.14", 12040, [("V100", "7.0"), ("V100", "7.0"), ("H100", "9.0")]))
    assert len(found) == 2 and "V100" in found[1]
