"""The lock of a machine. All its users share it."""

import os

from jouleline.measure.node.device_lock import DeviceLock


def test_a_users_umask_does_not_close_it_to_others(tmp_path, monkeypatch):
    monkeypatch.setenv("JOULELINE_DEVICE_LOCK", str(tmp_path / "lock"))
    before = os.umask(0o077)
    try:
        with DeviceLock():
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o644
