"""`xdpstack bench`: what cannot be is refused before anything is built or run."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from xdpstack.bench.results import BenchError, Report
from xdpstack.cli import bench


def refused(*words: str) -> str:
    result = CliRunner().invoke(bench.bench, words)
    assert result.exit_code in (1, 2), result.output
    return result.output


@pytest.mark.parametrize(
    "words, why",
    [
        (("--seconds", "0"), "range"),
        (("--seconds", "-1"), "range"),
        (("--settle", "-0.1"), "range"),
        (("--ring", "1000"), "1000 is no power of two; 512 and 1024 are"),
        (("--ring", "32"), "range"),
        (("--peer", "eth1"), "--peer says nothing without -i"),
        (("--forward-to", "eth1"), "--forward-to says nothing without -i"),
        (("-i", "eth0", "--peer-netns", "far"), "--peer-netns says nothing without --peer"),
        (("-i", "eth0", "--forward-peer", "eth3"), "--forward-peer says nothing without --forward-to"),
        (("rx", "--only", "nobody"), "nobody"),
    ],
)
def test_what_cannot_be(words: tuple[str, ...], why: str) -> None:
    assert why in " ".join(refused(*words).split())


def test_folders_for_what_is_found_are_made_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def run(plan: object) -> Report:
        made.extend((tmp_path / name).is_dir() for name in ("a/b", "c"))
        raise BenchError("that is enough")

    monkeypatch.setattr(bench, "_run", run)
    monkeypatch.setattr(bench.os, "geteuid", lambda: 0)
    out = ["--json", str(tmp_path / "a/b/out.json"), "--callgrind", str(tmp_path / "c")]
    assert "that is enough" in refused("rx", *out)
    assert made == [True, True]
    (tmp_path / "file").touch()
    assert "no folder" in refused("rx", "--json", str(tmp_path / "file/out.json"))
