"""A long command says how far it is; a short one says nothing."""

from jouleline.commands import progress


def test_a_line_for_each_part_after_the_first_seconds(monkeypatch, capsys):
    clock = iter((0.0, 0.5, 10.0, 20.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress(4) as shown:
        for words in ("one", "two", "three"):
            shown.next(words)
    assert capsys.readouterr().err.splitlines() == [
        "1 of 4 done, 10 s, about 30 s left: two",
        "2 of 4 done, 20 s, about 20 s left: three",
    ]


def test_what_is_quick_is_quiet(monkeypatch, capsys):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    with progress.Progress(3) as shown:
        for words in "abc":
            shown.next(words)
    assert capsys.readouterr().err == ""
