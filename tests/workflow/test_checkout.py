"""The copy of the workflow that tests run in."""

from tests.workflow.checkout import copy_code


def test_a_copy_leaves_out_what_others_write_for_a_moment(tmp_path):
    """Tests beside this one write such files into the checkout. They are gone before they can be copied."""
    source = tmp_path / "code"
    (source / "__pycache__").mkdir(parents=True)
    (source / "module.py").write_text("")
    for name in ("module.cpython-311.pyc", "code-meanings.cpython-311.json"):
        (source / "__pycache__" / name).write_text("")
    # A link to nothing fails to be copied like a file that was listed and is gone.
    for name in ("module.cpython-311.pyc.1406", ".code-meanings.cpython-311.json.17525.tmp"):
        (source / "__pycache__" / name).symlink_to("nothing")
    copy_code(source, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == [
        "__pycache__",
        "code-meanings.cpython-311.json",
        "module.cpython-311.pyc",
        "module.py",
    ]
