"""Limits of a run: memory and disks."""

import errno
import logging
import os
import types

import pandas as pd
import pytest
import torch
from stripes import config, same_weights, states, stripes

from warplca.configs import InputError
from warplca.train import Interrupted, StandardLoss, train
from warplca.train import state as state_module


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
    ],
)
def test_running_out_of_memory_names_the_settings_to_change(tmp_path, monkeypatch, error):
    def too_large(self, model, batch):
        raise error

    monkeypatch.setattr(StandardLoss, "__call__", too_large)
    with pytest.raises(
        InputError,
        match=r"out of memory at step 1: train.batch_size 16 in 1 part\(s\) .* train.accumulation to 2",
    ):
        train(config("conv"), stripes(), tmp_path, progress=False)


def test_other_errors_are_not_taken_for_memory(tmp_path, monkeypatch):
    def wrong(self, model, batch):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(StandardLoss, "__call__", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(config("conv"), stripes(), tmp_path, progress=False)


def test_a_full_disk_costs_a_warning_in_between_and_an_error_at_the_end(tmp_path, monkeypatch, caplog):
    whole = train(config("conv"), stripes(), tmp_path / "whole", progress=False)
    save = state_module.save_state
    full = [True]

    def limited(*arguments, **options):
        if full[0]:
            raise InputError("cannot write it: No space left on device.")
        return save(*arguments, **options)

    monkeypatch.setattr(state_module, "save_state", limited)
    run = config("conv", save_minutes=1e-9)
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="No space left"):
        train(run, stripes(), tmp_path / "full", progress=False)
    assert caplog.text.count("No space left on device. The work goes on") == 14
    full[0] = False
    assert same_weights(train(run, stripes(), tmp_path / "full", progress=False), whole)


@pytest.mark.parametrize("times", [2, 3])
def test_curves_that_cannot_be_written_stop_only_the_last_epoch(tmp_path, monkeypatch, caplog, times):
    from warplca.train import record

    write, left = record.file_written_whole, [times]

    def limited(path):
        if path.name == record.CURVES_FILE and left[0]:
            left[0] -= 1
            raise InputError("cannot write it: No space left on device.")
        return write(path)

    monkeypatch.setattr(record, "file_written_whole", limited)
    run = config("conv", epochs=3)
    if times == 3:
        with pytest.raises(InputError, match="No space left"):
            train(run, stripes(), tmp_path, progress=False)
    train(run, stripes(), tmp_path, progress=False)
    assert caplog.text.count("No space left on device. Training goes on; the next epoch writes them all") == 2
    assert len(pd.read_csv(tmp_path / "curves.csv")) == 3


@pytest.mark.parametrize(("accumulation", "processes", "largest"), [(1, 1, 16), (4, 1, 4), (2, 3, 3)])
def test_validation_takes_no_more_images_at_once_than_a_part_of_a_step(accumulation, processes, largest):
    from warplca.train.validate import Validator

    recipe = config("conv", accumulation=accumulation).train
    accelerator = types.SimpleNamespace(
        device=torch.device("cpu"), num_processes=processes, process_index=0, reduce=lambda value, how: value
    )
    sizes = []

    def model(images):
        sizes.append(len(images))
        return torch.zeros(len(images), 2)

    Validator(stripes(40), recipe, accelerator)(model)
    assert max(sizes) == largest
    assert sum(sizes) == -(-40 // processes)


def test_memory_that_no_smaller_part_can_save_asks_for_a_smaller_model():
    from warplca.train.step import memory_explained

    recipe = config("conv", accumulation=16).train
    with pytest.raises(InputError, match="take a smaller model"), memory_explained(recipe, 0):
        raise MemoryError


def test_a_real_full_disk_leaves_the_older_states(tmp_path):
    """A file-size limit stands in for the full disk: the write fails half-way, as there."""
    resource = pytest.importorskip("resource")
    import signal

    with pytest.raises(Interrupted):
        train(config("conv"), stripes(), tmp_path, progress=False, stop_after=3)
    before = states(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write .*step-000000005.safetensors: File too large"):
            train(config("conv"), stripes(), tmp_path, progress=False, stop_after=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert states(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*run: "):
        train(config("conv"), stripes(), tmp_path / "file" / "run", progress=False)

    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("warplca.configs.atomic.os.open", read_only)
    with pytest.raises(InputError, match="cannot write .*run: Read-only file system"):
        train(config("conv"), stripes(), tmp_path / "run", progress=False)
