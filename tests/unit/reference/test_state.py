"""What a carried state may lay into a checkout."""

import hashlib
import io
import json
import tarfile

from jouleline.reference import state


def test_only_plain_files_below_the_folder_are_laid(tmp_path):
    carried, root = tmp_path / "carried", tmp_path / "deep" / "root"
    carried.mkdir()
    root.mkdir(parents=True)
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(carried / "piece", "w:gz") as tar:
        for name in ("results/run.json", "../beside", str(tmp_path / "absolute")):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"{}"))
        tar.addfile(link)
    digest = hashlib.sha256((carried / "piece").read_bytes()).hexdigest()
    (carried / "c-state.json").write_text(json.dumps({"sha256": digest, "pieces": ["piece"]}))
    assert state.unpack(root, "c", carried) == 1
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "c-state.json",
        "piece",
        "run.json",
    ]
