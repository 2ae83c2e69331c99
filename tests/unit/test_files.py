"""Files that cannot be used: the true cause, in one line, and nothing of the user's is lost."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import refusals
from jouleline.commands.options import json_object
from jouleline.errors import UserError
from jouleline.files import (
    atomic_path,
    read_json,
    require_shared,
    require_writable,
    run_script,
    why,
    write_json,
)

# What the operating system may refuse, and a word of what is said.
REFUSALS = [
    (errno.EACCES, "permission denied"),
    (errno.EISDIR, "is a directory"),
    (errno.ENOSPC, "free the disk"),
    (errno.EDQUOT, "quota"),
    (errno.EROFS, "read-only"),
    (errno.ESTALE, "mount it again"),
    (errno.EIO, "input/output error"),
    (errno.ENOLCK, "another file system"),
    (errno.ELOOP, "symbolic links"),
    (errno.EMFILE, "ulimit -n"),
    (errno.ENFILE, "the machine has too many"),
    (errno.EAGAIN, "temporarily unavailable"),
    (errno.ENOMEM, "free memory"),
    (errno.EINTR, "a signal interrupted it"),
    (errno.ENOTCONN, "mount it again"),
]


def refuse(monkeypatch, name: str, code: int) -> None:
    """Every call of this method of Path is refused."""

    def raises(path, *_, **__):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, name, raises)


@pytest.mark.parametrize(("code", "said"), REFUSALS)
def test_a_file_that_cannot_be_read_is_not_called_torn(tmp_path, monkeypatch, code, said):
    write_json(tmp_path / "run.json", {})
    refuse(monkeypatch, "read_bytes", code)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "run.json")
    line = str(caught.value)
    assert "cannot read" in line and "run.json" in line and said in line and "\n" not in line
    assert "delete" not in line and "torn" not in line


@pytest.mark.parametrize(("code", "said"), REFUSALS)
def test_a_file_that_cannot_be_written_says_why_and_the_old_one_stays(tmp_path, monkeypatch, code, said):
    write_json(tmp_path / "run.json", {"old": 1})
    with monkeypatch.context() as patched:
        refuse(patched, "write_text", code)
        with pytest.raises(UserError, match="cannot write .*run.json") as caught:
            write_json(tmp_path / "run.json", {"new": 2})
    assert said in str(caught.value) and os.listdir(tmp_path) == ["run.json"]
    assert read_json(tmp_path / "run.json") == {"old": 1}


def test_an_error_of_another_file_is_not_taken_for_ones_own(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "out.json"):
        (tmp_path / "input").mkdir()
        (tmp_path / "input").read_text()


def test_a_missing_and_a_torn_file_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="missing file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(UserError, match="not whole JSON .* make it again"):
        read_json(tmp_path / "torn.json")
    with pytest.raises(UserError, match="not whole JSON .* correct it"):
        read_json(tmp_path / "torn.json", "correct it")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_byte_order_mark_or_what_windows_writes_is_no_error(tmp_path, encoding):
    (tmp_path / "mapping.json").write_bytes(json.dumps({"a": 1}).encode(encoding))
    assert read_json(tmp_path / "mapping.json") == {"a": 1}


# What Python's reader takes, or ends in a traceback.
NO_JSON = {
    '{"a": 1, "b": 2, "a": 3}': "the key 'a' stands twice; keep one",
    '[{"x": {"a": 1, "a": 1}}]': "the key 'a' stands twice",
    '{"a": NaN}': "NaN is no number of JSON; null is",
    "[-Infinity]": "-Infinity is no number",
    "[" * 100_000: "nested too deeply",
    '{"a":' * 100_000: "nested too deeply",
    "9" * 5000: "Exceeds the limit",
}


@pytest.mark.parametrize(("text", "said"), NO_JSON.items(), ids=range(len(NO_JSON)))
def test_what_is_no_json_is_refused_in_one_line(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=f"x.json is not whole JSON .*{said}") as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="--plan is not JSON"):
        json_object(text, "--plan")


def test_a_script_says_what_was_refused_in_one_line(tmp_path, capsys):
    def body():
        tmp_path.read_text()

    assert run_script(body) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}: is a directory") and said.count("\n") == 1


def test_an_error_that_is_about_no_file_keeps_its_traceback():
    with pytest.raises(ConnectionRefusedError):
        run_script(lambda: (_ for _ in ()).throw(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))


@pytest.mark.parametrize(("code", "said"), REFUSALS)
def test_why_has_no_file_and_one_line(code, said):
    text = why(OSError(code, os.strerror(code), "/secret"))
    assert said in text and "/secret" not in text and "\n" not in text and text[0].islower()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can leave files of another user")
def test_files_that_another_user_left_and_closed_are_told(tmp_path):
    kept = tmp_path / "metadata" / "record"
    kept.parent.mkdir()
    kept.write_text("{}")
    kept.chmod(0o660)
    require_shared(tmp_path)
    os.chown(kept, 65534, 65534)
    with refusals.without_privileges(), pytest.raises(UserError, match="files of user 65534 .* umask 002"):
        require_shared(tmp_path)
    os.chown(kept, 65534, os.getgid())  # a group of both
    with refusals.without_privileges():
        require_shared(tmp_path)
    kept.parent.chmod(0o700)  # a folder that nobody else may enter, as by umask 077
    os.chown(kept.parent, 65534, 65534)
    with refusals.without_privileges(), pytest.raises(UserError, match="metadata has files of user 65534"):
        require_shared(tmp_path)
    kept.parent.rename(tmp_path / "tmp.of-a-snakemake-that-runs")
    with refusals.without_privileges():
        require_shared(tmp_path)
    require_shared(tmp_path / "none")


# Where the output of a program that prints goes, its exit code, and what stands on stderr.
FULL = "error: no space left on device; free the disk, or choose another place\n"
OUTPUTS = [
    ("> /dev/full", 2, FULL),
    ("> /dev/full 2>&1", 2, ""),
    ("2> /dev/full", 0, ""),
    ("| true", 141, ""),
    (">&-", 0, ""),
    ("2>&-", 0, ""),
    ("<&- >&- 2>&-", 0, ""),
]


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize(("to", "code", "said"), OUTPUTS)
def test_output_that_nobody_takes_is_no_traceback(to, code, said, lines):
    program = "from jouleline.files import run_script; import sys; "
    program += (
        f"raise SystemExit(run_script(lambda: print('x\\n' * {lines}, print('', end='', file=sys.stderr))))"
    )
    # The reader of the pipe has ended before the program prints.
    command = f'set -o pipefail; (sleep 0.2; exec "{sys.executable}" -c "{program}") {to}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)


# What is asked of a command whose streams are gone, and the exit code.
STREAMS = {
    "status c --results . >&-": 2,
    "--help > /dev/full": 2,
    "fit --help >&-": 0,
    "none 2> /dev/full": 2,
    "fit --none 2>&-": 2,
    "measure --idle-s 0 --out out -- true 2> /dev/full": 0,
    "measure --meter estimate --idle-s 0 --out out -- echo x <&- >&- 2>&-": 0,
}


@pytest.mark.parametrize(("words", "code"), STREAMS.items())
def test_a_command_without_its_streams_does_its_work(tmp_path, words, code):
    command = f'"{sys.executable}" -m jouleline.commands.main {words}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert "out" not in words or (tmp_path / "out/meta.json").exists()


def test_a_file_does_not_take_the_place_of_a_stream_that_was_closed(tmp_path):
    """What a child prints would land in it."""
    program = "import subprocess; from jouleline.files import run_script\n"
    program += "def body():\n with open('kept', 'w') as kept: subprocess.run(['echo', 'stray']); kept.write('kept')\n"
    command = f'"{sys.executable}" -c "{program}run_script(body)" <&- >&-'
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_folder_that_is_gone_and_one_for_temporary_files_that_is_none_are_told(tmp_path):
    begin = f'mkdir gone; cd gone; rmdir ../gone; "{sys.executable}" -m jouleline.commands.main'
    done = subprocess.run(["bash", "-c", f"{begin} status"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(
        "error: the current folder is not there any more; "
    )
    words = "measure --out out -- true"  # no file may have a byte
    command = f'ulimit -f 0; "{sys.executable}" -m jouleline.commands.main {words}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: No usable temporary directory") and "; set TMPDIR" in done.stderr


def test_ctrl_c_in_a_script_is_one_line(capsys):
    def body():
        raise KeyboardInterrupt

    assert run_script(body) == 130 and capsys.readouterr().err == "error: interrupted\n"


def test_a_folder_whose_name_is_too_long_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot write .*: file name too long; choose a shorter name"):
        require_writable(tmp_path / ("x" * 300))
