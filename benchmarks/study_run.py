"""Run a study: its comparisons in order of importance, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from study_config import StudyConfig

from warplca.configs import ComparisonConfig, EvaluationPlan
from warplca.data import load_dataset
from warplca.pipeline.arms import Measurement, default_workers, measure_at_once
from warplca.pipeline.comparison import Outcome, run_comparison, run_folder

Say = Callable[[str], None]
VERDICTS = "verdicts.sqlite"


def run_study(
    config: StudyConfig,
    out: str | Path,
    *,
    say: Say = lambda line: None,
    after: Callable[[str], None] = lambda part: None,
    progress: bool = True,
) -> dict[str, Outcome]:
    """Run every part with its first seed, in order, then with the next one; finished work is kept.

    Args:
        config: Parts and what they share.
        out: Folder; each part has one of its own name in it, as ``run_comparison`` leaves it.
        say: Receives a line of text at each stage.
        after: Called with a part's name whenever it has been measured with one more seed, for instance to write
            what is known so far.
        progress: Whether to show progress bars.

    Returns:
        The outcome of each part, with all its seeds.

    Raises:
        InputError: If a part does not fit, or ``out`` holds another study.
        Interrupted: On SIGINT or SIGTERM in training, after saving; the same call goes on.
    """
    outcomes = {}
    for part, comparison in config.rounds():
        say(f"== {part}, {len(comparison.seeds)} of {len(config.comparisons()[part].seeds)} seeds")
        outcomes[part] = run_comparison(comparison, Path(out) / part, say=say, progress=progress)
        after(part)
    for part, comparison in config.comparisons().items():
        if config.judged.attacks and comparison.measure_on == "test":  # pilots have seen no test image
            say(f"== judging {part}")
            _judge(comparison, config.judged, Path(out) / part, progress)
            after(part)
    return outcomes


def _judge(config: ComparisonConfig, plan: EvaluationPlan, folder: Path, progress: bool) -> None:
    """Attack the first seed's networks with the suites that judge."""
    seed = config.seeds[0]
    runs = {arm: run_folder(folder, arm, seed) for arm in config.arms}
    measurements = [Measurement(arm, seed, run, plan, folder / VERDICTS) for arm, run in runs.items()]
    test = load_dataset(config.data, "test")
    measure_at_once(
        measurements, test, workers=config.workers or default_workers(len(runs)), progress=progress
    )
