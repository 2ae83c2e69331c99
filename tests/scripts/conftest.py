"""Two networks with a cable between them."""

import os
import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def dataset(small_dataset):
    return small_dataset


@pytest.fixture
def two_networks():
    """Two network namespaces with a cable between them; the loopback of neither reaches the other."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2; other tests let agents meet on the loopback")
    names, addresses = (f"jl{os.getpid()}a", f"jl{os.getpid()}b"), ("10.213.7.1", "10.213.7.2")

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            "jlcable0",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "jlcable1",
            "netns",
            names[1],
        )
        for index, name in enumerate(names):
            ip("-n", name, "address", "add", f"{addresses[index]}/24", "dev", f"jlcable{index}")
            ip("-n", name, "link", "set", f"jlcable{index}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield addresses, [("ip", "netns", "exec", name) for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
