"""What people see while commands work: lines instead of bars in files, each warning once, tables, keys."""

from __future__ import annotations

import io
import json
import logging
import sys

import pandas as pd
import pytest
import yaml

from warplca.cli.main import main
from warplca.configs import RunConfig, load_config
from warplca.configs.listing import list_keys
from warplca.configs.load import to_plain
from warplca.configs.notices import Notices
from warplca.configs.progress import QUIET, Bar, quiet
from warplca.data import load_dataset
from warplca.eval import evaluate


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, **options: object) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar(range(3), desc="work", file=stream, **options) as bar:
        assert list(bar) == [0, 1, 2]
        bar.line("half done")
    return stream.getvalue()


def test_a_bar_is_for_terminals_and_a_line_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(QUIET, raising=False)
    assert shown(monkeypatch, io.StringIO()) == "warplca: work: half done\n"
    assert "work: 100%" in shown(monkeypatch, Terminal())
    for stream in (io.StringIO(), Terminal()):
        assert shown(monkeypatch, stream, show=False) == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_the_environment_and_quiet_forbid_both(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]
) -> None:
    monkeypatch.setenv(QUIET, "1")
    assert shown(monkeypatch, stream()) == ""
    monkeypatch.setenv(QUIET, "0")
    with quiet():
        assert shown(monkeypatch, stream()) == ""
    assert shown(monkeypatch, stream()) != ""


def test_files_hear_of_long_work_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warplca.configs.progress.time.monotonic", iter(range(0, 1000, 25)).__next__)
    monkeypatch.delenv(QUIET, raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar(total=8, desc="work") as bar:
        for _ in range(8):
            bar.update()
    assert stream.getvalue() == "warplca: work: 3 of 8 (38%)\nwarplca: work: 6 of 8 (75%)\n"


def test_a_warning_is_said_once_and_without_what_a_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = Notices()
    for name, text in (("warplca.a", "one\x1b[2J"), ("warplca.b", "one\x1b[2J"), ("other", "two")):
        handler.handle(logging.LogRecord(name, logging.WARNING, "", 0, text, None, None))
    assert stream.getvalue() == "warplca: one\\x1b[2J\n"


def test_config_lists_every_key_of_every_preset() -> None:
    """What `warplca config` lists is what can be typed: no key of a configuration is missing."""

    def names(values: object, prefix: str = "") -> set[str]:
        if not isinstance(values, dict):
            return {prefix.rstrip(".")}
        return set().union(*(names(value, f"{prefix}{key}.") for key, value in values.items()))

    keys = {key.name: key for key in list_keys(RunConfig)}
    for preset in ("conv", "warp-lca", "lca+trades", "none+augmix-jsd", "warp-lca+consistency"):
        typed = names(to_plain(load_config(RunConfig, preset, "train")))
        unknown = {name for name in typed - set(keys) if not name.endswith((".name", ".threat"))}
        assert all(name.startswith(("model.backbone_options", "train.frontend")) for name in unknown), unknown
    assert all(key.meaning for key in keys.values())
    assert keys["model.frontend.lam"].of == ("lca", "warp-lca")
    assert keys["train.frontend.distillation"].of == ("warp-lca",)


def test_config_and_print_config_print_tables_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "train", "frozen_epochs"]) == 0
    assert capsys.readouterr().out.startswith(
        "train.frontend.frozen_epochs=0  (whole number or null; of conv, lca"
    )
    assert main(["config", "plan", "--format", "json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} > {"corruptions", "attacks"}
    assert main(["config", "train", "no-such"]) == 2
    capsys.readouterr()
    assert main(["train", "--config", "warp-lca", "--print-config", "train.epochs=12"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == to_plain(load_config(RunConfig, "warp-lca", "train", ["train.epochs=12"]))
    assert main(["evaluate", "--plan", "quick", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["attack_images"] == 100


@pytest.mark.parametrize("preset", ["none", "warp-lca+denoising", "conv+trades+ema"])
def test_a_printed_configuration_can_be_read_again(
    preset: str, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--config", preset, "--print-config"]) == 0
    file = tmp_path / "mine.yaml"
    file.write_text(capsys.readouterr().out)
    assert load_config(RunConfig, file, "train") == load_config(RunConfig, preset, "train")


def test_an_evaluation_prints_what_people_look_for_first() -> None:
    images = load_dataset("cifar10-subset", "test").subset(range(20))
    found = evaluate(
        lambda pixels: pixels.mean((2, 3)) @ pixels.new_ones(3, 10), images, "clean", name="mine"
    )
    lines = str(found).splitlines()
    assert lines[0].split() == ["model", "condition", "accuracy", "95", "%", "interval", "images"]
    assert lines[1].startswith("mine   clean")
    assert f"{100 * found['accuracy'][0]:.1f} %" in lines[1]
    assert list(found.to_frame())[:5] == ["model", "condition", "severity", "threat", "accuracy"]
    assert type(found.to_frame()) is type(found[["accuracy"]]) is pd.DataFrame
    assert "<pre>" in found._repr_html_()
