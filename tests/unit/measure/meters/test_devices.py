"""Which GPUs belong to the job, for every form of CUDA_VISIBLE_DEVICES."""

import pytest
from jouleline.errors import UserError
from jouleline.measure.meters.devices import Gpu, choose

A, B, C = "GPU-aaaa1111-0000-0000-0000-000000000001", "GPU-aaaa2222-0000-0000-0000-000000000002", "GPU-cccc"
# The driver's order is not that of the bus.
GPUS = [
    Gpu(0, A, "H100", "00000000:41:00.0", mig=["MIG-11111111-a", "MIG-22222222-b"]),
    Gpu(1, B, "H100", "00000000:01:00.0"),
    Gpu(2, C, "H100", "00000000:81:00.0"),
]


def names(visible: str | None, order: str | None = None, gpus=GPUS, asked="auto") -> list[str]:
    environment = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": order}
    return [c.gpu.uuid for c in choose(asked, {k: v for k, v in environment.items() if v is not None}, gpus)]


@pytest.mark.fault(
    "device order different from the driver's index", "integers follow CUDA's order; identity is the UUID"
)
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [A, B, C]),
        ("0", [B]),
        ("1,0", [A, B]),
        ("2", [C]),
        (A, [A]),
        ("GPU-aaaa2", [B]),
        (f"{C},GPU-aaaa1", [C, A]),
        ("MIG-2222", [A]),
        (f"MIG-{A}/1/0", [A]),
        ("", []),
        ("-1", []),
        ("1,-1,0", [A]),
    ],
)
def test_forms_of_cuda_visible_devices(visible, expected):
    assert names(visible) == expected


def test_slices_of_one_gpu_are_joined():
    (chosen,) = choose("auto", {"CUDA_VISIBLE_DEVICES": "MIG-1111,MIG-2222"}, GPUS)
    assert chosen.slices == ["MIG-11111111-a", "MIG-22222222-b"]


def test_an_explicit_choice_counts_as_the_driver_does():
    assert names("2", asked="0") == [A]
    assert names("2", asked=f"{B},GPU-c") == [B, C]


def test_different_gpus_need_the_bus_order():
    mixed = [GPUS[0], Gpu(1, B, "A2", "00000000:01:00.0")]
    with pytest.raises(UserError, match="PCI_BUS_ID"):
        names("0", gpus=mixed)
    assert names("0", "PCI_BUS_ID", mixed) == [B]
    assert names(A, gpus=mixed) == [A]


@pytest.mark.parametrize("visible", ["3", "GPU-zzzz", "GPU-aaaa", "MIG-9", "0,0", A + "," + A])
def test_a_name_that_is_unknown_ambiguous_or_double_is_refused(visible):
    with pytest.raises(UserError) as caught:
        names(visible)
    assert A in str(caught.value) or "twice" in str(caught.value)


SILENT = Gpu(1, "unanswered:1", "unknown", None)
ALONG_BUS = [Gpu(0, A, "H100", "00000000:01:00.0"), SILENT, Gpu(2, C, "H100", "00000000:81:00.0")]


@pytest.mark.fault(
    "a GPU that does not answer, and integers in CUDA_VISIBLE_DEVICES", "only the numbers before it are used"
)
def test_a_gpu_that_does_not_answer_leaves_the_numbers_before_it():
    assert names("0", gpus=ALONG_BUS) == [A]
    for visible in ("1", "2", "0,2"):
        with pytest.raises(UserError, match="GPU 1 did not answer.* use UUIDs"):
            names(visible, gpus=ALONG_BUS)
    assert names(C, gpus=ALONG_BUS) == [C]
    assert names("1,2", gpus=ALONG_BUS, asked="1,2") == [SILENT.uuid, C]
    # The others show that the driver does not count along the bus. So the silent one may be anywhere on it.
    with pytest.raises(UserError, match="GPU 1 did not answer"):
        names("0", gpus=[GPUS[0], SILENT, Gpu(2, B, "H100", "00000000:01:00.0")])
