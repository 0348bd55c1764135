"""The forecast against what a local update really takes, and what is said of it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import small_federation as small
from pydantic import ValidationError

from fl_ppseg.config.loading import load_config
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.experiment import memory_forecast
from fl_ppseg.experiment.memory_forecast import (
    PROCESS_BYTES,
    TOLERANCE,
    Forecast,
    fit_memory,
    forecast,
    machine_bytes,
)
from fl_ppseg.system.errors import InputError, RunError, describe

MEASURED = """
import re, sys
import numpy as np
import clients.client_app
from fl_ppseg.config.loading import load_config
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.learning.training import Position, local_update
config = load_config(None, sys.argv[1:])
size, batch = config.data.image_size, config.training.batch_size
class Manifest: client = "ulm"
class Part: manifest = Manifest()
class Shard:
    parts, num_views, num_places, is_of_round = [Part()], 1, (1, 1), False
    def __len__(self): return 2 * batch
    def batch(self, indices, views):
        images = np.zeros((len(indices), 3, *size), np.uint8)
        return images, np.zeros((len(indices), *size), np.uint8)
def peak():  # of this program alone: ru_maxrss is inherited from whoever started it
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
model = build_architecture(config.model, 19, size)
weights = {name: value.clone() for name, value in model.state_dict().items()}
local_update(model, weights, {}, Shard(), config.training, Position(1, 2), 0)
print(peak() - before)
"""
"""A local update in a process of its own: what it takes beyond what was there before."""


@pytest.mark.parametrize(
    "settings",
    [
        ["data.image_size=[128,256]", "training.batch_size=8"],
        ["data.image_size=[128,256]", "training.batch_size=4", "model.decoder=mla"],
    ],
    ids=["pup", "mla"],
)
def test_the_forecast_is_within_its_tolerance_of_a_real_update(settings: list[str]) -> None:
    command = [sys.executable, "-c", MEASURED, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = int(done.stdout.split()[-1])
    said = forecast(load_config(None, [*settings, "arms=[plain]"]), 19).process - PROCESS_BYTES
    assert said == pytest.approx(taken, rel=TOLERANCE)


def test_more_views_a_step_and_larger_models_need_more() -> None:
    def need(**changes: object) -> Forecast:
        return forecast(small.config(None, **changes), 19)

    one = need()
    assert need(training={"batch_size": 8}).process > one.process
    assert need(model={"depth": 8}).process > one.process
    assert need(data={"image_size": [64, 128]}).process > one.process
    assert need(device="cuda").process < one.process  # features lie on the GPU
    assert one.num_processes == 1
    assert need(engine="ray", num_workers=2).num_processes == 2
    assert need(engine="ray", num_workers=2).total > one.total
    views, model = {"batch_size": 64}, {"depth": 48}  # more than scoring and the decoder take
    checkpointed = need(training=views | {"gradient_checkpointing": True}, model=model)
    deep = need(training=views, model=model)
    assert deep.checkpointed == checkpointed.process < deep.process
    assert checkpointed.checkpointed is None
    both, plain = need(arms=["plain", "per-image-invariant-labels"]), need(arms=["plain"])
    assert both.process > plain.process  # a pixel head


NEED = Forecast(process=4 * 10**9, server=10**9, num_processes=4, fixed=10**9)


def test_what_fits_runs_and_nothing_is_said() -> None:
    assert fit_memory(NEED, 64 * 10**9, 32 * 10**9) == (4, None)


def test_no_more_clients_train_at_a_time_than_memory_holds() -> None:
    number, note = fit_memory(NEED, 16 * 10**9, 12 * 10**9)
    assert number == 2 and note is not None
    assert "needs about 18.0 GB (4 client processes of 4.0 GB" in note
    assert "12.0 GB are free: at most 2 at a time will run" in note
    assert fit_memory(NEED, 16 * 10**9, 1)[0] == 1
    less = replace(NEED, checkpointed=2 * 10**9)
    said = fit_memory(less, 16 * 10**9, 12 * 10**9).note
    assert said is not None
    assert "training.gradient_checkpointing=true (2.0 GB a process)" in said
    assert len(said.splitlines()) == 1


def test_a_number_that_was_chosen_is_kept_or_refused() -> None:
    number, note = fit_memory(NEED, 16 * 10**9, 12 * 10**9, is_chosen=True)
    assert number == 4 and note is not None
    assert "if it is killed, choose --set num_workers=2" in note
    with pytest.raises(InputError, match=r"num_workers 4 needs .*num_workers=2") as no:
        fit_memory(NEED, 13 * 10**9, 12 * 10**9, is_chosen=True)
    assert len(str(no.value).splitlines()) == 1


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"about 6\.0 GB in one process.*has 3\.0 GB") as refused:
        fit_memory(NEED, 3 * 10**9, 2 * 10**9)
    assert len(str(refused.value).splitlines()) == 1


def test_a_container_s_limit_is_the_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("max", "current")]
    files[0].write_text("5000000\n")
    files[1].write_text("2000000\n")
    monkeypatch.setattr(memory_forecast, "CGROUPS", [tuple(map(str, files))])
    assert machine_bytes() == (5_000_000, 3_000_000)
    files[0].write_text("max\n")
    assert machine_bytes()[0] > 10**8


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate"),
    ],
    ids=["python", "torch", "torch on windows", "cuda"],
)
def test_running_out_of_memory_is_one_line_of_advice(error: Exception) -> None:
    assert describe(error).startswith("out of memory; use a smaller training.batch_size")
    assert not describe(RunError("round 3")).startswith("out of memory")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"embed_dim": 8192, "depth": 128, "num_heads": 64}, "million weights"),
        ({"decoder_channels": 4096, "num_convs": 16}, "million weights|million numbers"),
        ({"up_scale": 32, "num_convs": 16}, "enlarge 8x16 patches"),
        ({"patch_size": 1, "embed_dim": 4096, "num_heads": 1}, "million weights"),
    ],
    ids=["wide and deep", "decoder", "upsampling", "positions"],
)
def test_models_that_are_too_large_together_are_refused_before_they_are_built(
    model: dict[str, object], said: str
) -> None:
    config = Config.model_validate({"model": model | {"weights": None}, "data": {}})
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"image_size": (64, 128)})}
    )
    if "patch_size" in model:
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"image_size": (1024, 2048)})}
        )
    with pytest.raises(InputError, match=said):
        forecast(config, 19)


def test_a_request_of_a_billion_layers_is_of_no_known_form() -> None:
    for name in ("depth", "num_convs", "embed_dim"):
        with pytest.raises(ValidationError):
            ModelConfig.model_validate_json(f'{{"{name}": 1000000000}}')
