"""Ours in the place of Snakemake's methods, as often as a Snakefile is read in one process."""

import asyncio
import sys
from types import SimpleNamespace

import pytest
from jouleline.patches.methods import replace

OWNER = "made_up_engine", "Engine"


@pytest.fixture
def engine(monkeypatch):
    class Engine:
        def say(self, word):
            return f"<{word}>"

        async def wait(self, word):
            return word

    monkeypatch.setitem(sys.modules, OWNER[0], SimpleNamespace(Engine=Engine))
    return Engine


def read_snakefile(mark: str) -> bool:
    def loud(self, theirs, word):
        return theirs(self, word.upper())

    def marked(self, theirs, word):
        return theirs(self, word) + mark

    return replace(OWNER, "say", loud) and replace(OWNER, "say", marked)


def test_every_replacement_counts_once_and_the_last_of_a_place(engine):
    assert engine().say("a") == "<a>"
    assert read_snakefile("!") and engine().say("a") == "<A>!"
    assert read_snakefile("?") and engine().say("a") == "<A>?"


def test_a_subclass_has_what_replaced_its_parents_method(engine, monkeypatch):
    class Child(engine):
        pass

    monkeypatch.setattr(sys.modules[OWNER[0]], "Child", Child, raising=False)
    read_snakefile("!")
    assert replace((OWNER[0], "Child"), "say", lambda self, theirs, word: theirs(self, word) + "child")
    assert Child().say("a") == "<A>!child" and engine().say("a") == "<A>!"


def test_a_coroutine_is_replaced_by_one(engine):
    async def twice(self, theirs, word):
        return 2 * await theirs(self, word)

    assert replace(OWNER, "wait", twice) and asyncio.run(engine().wait("ab")) == "abab"


@pytest.mark.parametrize("owner", [OWNER, (OWNER[0], "Other"), ("no_such_module", "Engine")])
def test_what_another_snakemake_lacks_is_left_alone(engine, owner):
    assert not replace(owner, "jump", lambda self, theirs: None)
    assert not hasattr(engine, "jump")
