"""``zmesh demo``: what it shows is true, and whatever ends it, no process is left behind."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rich.console import Console

from zmesh import ConfigError
from zmesh.demo import INSTALL, digits, run_chain, run_demo, stage
from zmesh.demo.score import RESULT, Score
from zmesh.demo.screen import Lines, screen, screen_table

ROOT = Path(__file__).parents[2]
SECONDS = 240
"""Above what ten interpreters need to start, and five rounds, on a busy machine; an idle one takes twenty."""
SUMMARY = (
    r"accuracy     \d\.\d{3} on 360 unseen digits "
    r"\(target: above 0\.9; each alone: 0\.\d{3}\)",
    r"deliveries   \d+/\d+: \d+/\d+ announcements by gossip, \d+/\d+ deltas straight back",
    r"propagation  p50 \d+\.\d ms, p99 \d+\.\d ms, from announcement to handler",
    r"copies       \d+\.\d\d per delivery of gossip",
)
"""How a run ends."""


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo with its files in ``folder``: one that is killed cannot tidy up."""
    ours = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "MESH_LISTEN_PORT": "not for the demo"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "zmesh", "demo", *arguments),
        env={**os.environ, **ours},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def validators_of(process: asyncio.subprocess.Process) -> list[psutil.Process]:
    """Its validators, once all of them run and connect."""
    assert process.stdout is not None
    while b"connecting" not in (line := await process.stdout.readline()):
        assert line, "the demo ended early"
    children: list[psutil.Process] = psutil.Process(process.pid).children()
    return children


async def ended(children: list[psutil.Process]) -> bool:
    """Whether all of them end within what they may take."""
    _, left = await asyncio.to_thread(psutil.wait_procs, children, timeout=20)
    return not left


async def test_ten_validators_learn_in_five_rounds_and_nothing_is_missed(tmp_path: Path) -> None:
    """With no argument at all, as whoever sees it first runs it."""
    async with demo(tmp_path) as process:
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    first, *said = out.decode().splitlines()
    assert first == "10 validators in 10 processes"
    took = r"reached 9/9, last after \d+\.\d ms"
    rounds = [f"round_{number:03}: {took}; 9/9 deltas came back; accuracy 0\\.\\d{{3}}" for number in range(1, 6)]
    told = [line for line in said if not line.startswith("...")]
    for line, expected in zip(told, [*rounds, f"result: the last model {took}", "", *SUMMARY], strict=True):
        assert re.fullmatch(expected, line), line
    by_name = {line[:12].strip(): line[13:] for line in told[-4:]}
    assert 0.9 < float(by_name["accuracy"].split()[0]) <= 1.0
    deliveries = "99/99: 54/54 announcements by gossip, 45/45 deltas straight back"
    assert by_name["deliveries"] == deliveries
    p50, p99 = map(float, re.findall(r"p\d\d (\S+) ms", by_name["propagation"]))
    assert 0 < p50 <= p99
    assert 1 <= float(by_name["copies"].split()[0]) < 10
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
async def test_a_stopped_demo_leaves_no_process_behind(number: signal.Signals, code: int, tmp_path: Path) -> None:
    async with demo(tmp_path, "--peers", "2", "--rounds", "1000", "--plain") as process:
        children = await validators_of(process)
        assert len(children) == 2
        process.send_signal(number)
        _, err = await process.communicate()
        assert (process.returncode, err.decode()) == (code, "stopped; no process is left\n")
        assert not any(child.is_running() for child in children)
        assert os.listdir(tmp_path) == []


async def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    async with demo(tmp_path, "--peers", "2", "--rounds", "1000", "--plain") as process:
        children = await validators_of(process)
        assert len(children) == 2
        process.kill()
        assert await ended(children)


async def test_a_validator_that_dies_ends_the_demo_which_says_so(tmp_path: Path) -> None:
    async with demo(tmp_path, "--peers", "3", "--rounds", "1000", "--plain") as process:
        children = await validators_of(process)
        children[-1].kill()
        _, err = await process.communicate()
        assert process.returncode == 1
        assert err.decode().startswith("the demo failed: validator_03 ended early")
        assert err.decode().count("\n") == 1
        assert not any(child.is_running() for child in children)


def test_without_scikit_learn_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_demo() == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{INSTALL}\n")
    assert 'pip install "zmesh-net[demo]"' in INSTALL
    with pytest.raises(OSError, match="scikit-learn is not installed"):
        digits.deal(3)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="--peers must be from 2 to 50, not 51"):
        run_demo(peers=51)
    with pytest.raises(ConfigError, match="--rounds must be from 1 to 1000, not 0"):
        run_demo(rounds=0)


@pytest.mark.parametrize("name", ["Alice", "//", "//Al ice", "/Alice"])
def test_a_chain_whose_validators_are_no_names_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="validators must be names such as //Alice, not "):
        run_chain([name], 0)


def test_without_node_the_chain_says_so_and_so_does_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    said = "a chain on this machine needs node and npm, but node is not installed"
    assert run_chain(["//Alice"], 0) == 1
    assert capsys.readouterr().err == f"{said}\n"
    assert run_demo(peers=2, as_json=True, on_chain=True) == 1
    assert capsys.readouterr().err == f"the demo failed: {said}\n"


# ---------------------------------------------------------------- what it learns


@pytest.mark.parametrize("validators", [2, 3, 4, 7, 10, 50])
def test_every_picture_is_dealt_once_and_a_mesh_of_any_size_learns(validators: int) -> None:
    shards, held_out = digits.deal(validators)
    assert len(shards) == validators
    assert sum(map(len, shards)) + len(held_out) == 1797
    kinds = {len(set(shard.labels.tolist())) for shard in shards}
    assert kinds == ({digits.SEEN} if validators >= digits.FEWEST_UNFAIR else {10})
    model = digits.blank()
    for _ in range(5):
        deltas = [(digits.train(model, shard) - model, len(shard)) for shard in shards]
        model = model + digits.average(deltas)
    assert digits.accuracy(model, held_out) > 0.9


def test_a_model_travels_as_bytes_and_what_is_none_is_refused() -> None:
    model = np.random.default_rng(1).normal(size=digits.SHAPE).astype(np.float32)
    data = digits.to_bytes(model)
    assert len(data) == 2600
    assert np.array_equal(digits.from_bytes(data), model)
    for wrong in (data[:-1], data + data, b"", np.full(digits.SHAPE, np.nan, "<f4").tobytes()):
        with pytest.raises(ValueError):
            digits.from_bytes(wrong)


def test_an_average_weighs_by_the_number_of_pictures() -> None:
    one, other = (np.full(digits.SHAPE, value, np.float32) for value in (1.0, 4.0))
    assert np.allclose(digits.average([(one, 200), (other, 100)]), 2.0)


# ---------------------------------------------------------------- what it says


def scored(*events: tuple[str, Mapping[str, Any]], rounds: int = 1, accuracy: float = 1.0) -> Score:
    """A score of three validators after these reports; every model is as accurate."""
    score = Score(["validator_01", "validator_02", "validator_03"], rounds)
    score.judge = lambda model: accuracy
    for validator, report in events:
        score.take(validator, report)
    return score


def heard(validator: str, name: str, at: float, seen: int, duplicates: int) -> tuple[str, Mapping[str, Any]]:
    report = {"event": "heard", "round": name, "at": at, "seen": seen, "duplicates": duplicates}
    return validator, report


MODEL = "A" * (2600 * 4 // 3) + "A="
ROUND = "round_001"
ANNOUNCED = ("validator_01", {"event": "announced", "round": ROUND, "at": 10.0})
AVERAGED = ("validator_01", {"event": "averaged", "round": ROUND, "model": MODEL})
ANNOUNCED_LAST = ("validator_01", {"event": "announced", "round": RESULT, "at": 11.0})


def delta(sender: str) -> tuple[str, Mapping[str, Any]]:
    return "validator_01", {"event": "delta", "round": ROUND, "sender": sender}


COMPLETE = (
    ANNOUNCED,
    heard("validator_02", ROUND, 10.010, 5, 3),
    heard("validator_03", ROUND, 10.030, 5, 3),
    delta("validator_02"),
    delta("validator_03"),
    AVERAGED,
    ANNOUNCED_LAST,
    heard("validator_02", RESULT, 11.020, 6, 4),
    heard("validator_03", RESULT, 11.040, 6, 4),
    ("validator_02", {"event": "stopped", "seen": 6, "duplicates": 7}),
    ("validator_03", {"event": "stopped", "seen": 6, "duplicates": 4}),
)


def test_a_complete_run_is_counted_to_the_last_copy() -> None:
    score = scored(*COMPLETE)
    assert score.problems == []
    assert (score.gossiped, score.sent_back, score.accuracy) == ((4, 4), (2, 2), 1.0)
    assert [round(score.delay(percent) * 1000) for percent in (25, 50, 99)] == [10, 20, 40]
    assert [one.copies for one in score.announcements] == [2.0, 2.5]
    assert score.copies == 2.25
    said = score.to_dict()
    assert json.loads(json.dumps(said)) == said
    assert said == {
        "ok": True,
        "problems": [],
        "validators": 3,
        "accuracy": 1.0,
        "accuracy_alone": 0.0,
        "announcements": {"delivered": 4, "expected": 4},
        "deltas": {"delivered": 2, "expected": 2},
        "propagation_ms": {"p50": 20.0, "p99": 40.0},
        "copies_per_delivery": 2.25,
        "rounds": [
            {
                "round": "round_001",
                "heard": 2,
                "last_ms": 30.0,
                "copies": 2.0,
                "deltas": ["validator_02", "validator_03"],
                "accuracy": 1.0,
            },
            {"round": "result", "heard": 2, "last_ms": 40.0, "copies": 2.5, "deltas": [], "accuracy": None},
        ],
    }


def test_it_makes_no_difference_whose_report_is_read_first() -> None:
    heard_first = (*COMPLETE[1:3], COMPLETE[0], *COMPLETE[3:])
    assert scored(*heard_first).to_dict() == scored(*COMPLETE).to_dict()


def ending(score: Score, monkeypatch: pytest.MonkeyPatch, *, as_json: bool = False) -> int:
    """The exit status of a demo that came to this score; what it says is on stdout."""

    async def perform(*arguments: object) -> Score:
        return score

    monkeypatch.setattr(stage, "perform", perform)
    return run_demo(peers=3, rounds=score.rounds, plain=True, as_json=as_json)


@pytest.mark.parametrize(
    "score,problems",
    [
        (scored(*COMPLETE[:2], *COMPLETE[3:]), ["round_001 was not heard by validator_03"]),
        (scored(*COMPLETE[:8], *COMPLETE[9:]), ["result was not heard by validator_03"]),
        (
            scored(*COMPLETE[:1], *COMPLETE[3:]),
            ["round_001 was not heard by validator_02, validator_03"],
        ),
        (scored(*COMPLETE[:4], *COMPLETE[5:]), ["in round_001 no delta came from validator_03"]),
        (scored(*COMPLETE, rounds=2), ["1 announcements were not made"]),
        (scored(*COMPLETE, accuracy=0.9), ["the accuracy 0.900 is not above 0.9"]),
        (scored(), ["2 announcements were not made", "the accuracy 0.000 is not above 0.9"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_whatever_is_missed_is_named_and_fails_the_demo(
    score: Score, problems: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score.problems == problems
    assert ending(score, monkeypatch) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[5:] == [f"MISSED       {problem}" for problem in problems]

    assert ending(score, monkeypatch, as_json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["problems"]) == (False, problems)


def test_a_run_that_missed_nothing_ends_well_and_says_how_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = scored(*COMPLETE)
    score.alone = 0.5
    assert ending(score, monkeypatch) == 0
    assert capsys.readouterr().out.splitlines() == [
        "",
        "accuracy     1.000 on 360 unseen digits (target: above 0.9; each alone: 0.500)",
        "deliveries   6/6: 4/4 announcements by gossip, 2/2 deltas straight back",
        "propagation  p50 20.0 ms, p99 40.0 ms, from announcement to handler",
        "copies       2.25 per delivery of gossip",
    ]
    assert ending(score, monkeypatch, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == score.to_dict()


def test_lines_say_each_thing_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for count in range(len(COMPLETE) + 1):
        lines.show(scored(*COMPLETE[:count]), "training")
    assert capsys.readouterr().out.splitlines() == [
        "3 validators in 3 processes",
        "... training",
        "round_001: reached 2/2, last after 30.0 ms; 2/2 deltas came back; accuracy 1.000",
        "result: the last model reached 2/2, last after 40.0 ms",
    ]


def test_a_line_waits_for_late_reports_until_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    lines, late = Lines(), scored(*COMPLETE[:2], *COMPLETE[3:])
    lines.show(late, "training")
    assert not any(line.startswith("round_001") for line in capsys.readouterr().out.splitlines())
    lines.show(late, "")
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in told if line.startswith("round_001")] == ["round_001: reached 1/2"]


def test_the_table_shows_in_eighty_columns_who_delivered() -> None:
    many = Score([f"validator_{number:02}" for number in range(1, 12)], 1)
    for validator, report in COMPLETE[:5]:
        many.take(validator, report)
    for validator in many.others:
        many.take(*delta(validator))
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(screen_table(many, "training"))
        text = console.export_text()
        for count in range(len(COMPLETE) + 1):
            console.print(screen_table(scored(*COMPLETE[:count]), ""))
        few = console.export_text()
    assert "…" not in text + few
    (row,) = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    assert (row[1].strip(), row[2].strip(), row[5].strip()) == ("round_001", "2/10", "2 3 4 5 6 7 8 9 10 11")
    assert any("2/2" in line and "2 3" in line and "1.000" in line for line in few.splitlines())


def test_without_a_terminal_or_colour_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not isinstance(screen(plain=False), Lines)
    assert isinstance(screen(plain=True), Lines)
    monkeypatch.setenv("NO_COLOR", "1")
    assert isinstance(screen(plain=False), Lines)
