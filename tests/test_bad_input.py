"""A mistake of the user is one sentence that says what to do, before anything is done."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import commands
import jax.numpy as jnp
import pytest

from maskjax.config import to_json
from maskjax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[1]
MAE = ROOT / "configs" / "mae.py"
ENVIRONMENT = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "2",
    "PYTHONPATH": str(ROOT),
}

CONFIG_FILE = """
import runpy
from maskjax.config import part

def get_config():
    config = runpy.run_path({mae!r})["get_config"]("tiny")
    {line}
    return config
"""


def on_tiny(*flags):
    """Flags on the tiny configuration, in a work directory of their own."""
    return [f"--config={MAE}:tiny", "--workdir={folder}/run", *flags]


def in_file(line):
    """A config file with one more line."""
    return [line, "--config={folder}/config.py", "--workdir={folder}/run"]


# name: (flags, what the sentence has to say)
CASES = {
    "unknown key": (
        on_tiny("--config.trian.batch_size=3"),
        "The config has no key 'config.trian.batch_size'; did you mean 'config.train.batch_size'?",
    ),
    "unknown key in a section": (
        on_tiny("--config.train.btach_size=3"),
        "The config has no key 'config.train.btach_size'; did you mean 'config.train.batch_size'?",
    ),
    "unknown key in a file": (
        in_file("config.train.btach_size = 3"),
        "config.py, line 7: the config has no key 'btach_size'; did you mean 'batch_size'?",
    ),
    "unknown section in a file": (
        in_file("config.trian = 3"),
        "config.py, line 7: the config has no key 'trian'; did you mean 'train'?",
    ),
    "unknown key like no other": (
        in_file("config.train.zzz = 3"),
        "config.py, line 7: the config has no key 'zzz'.",
    ),
    "mistake in a file": (
        in_file("config.seed = 1 / 0"),
        "config.py, line 7: ZeroDivisionError: division by zero",
    ),
    "syntax of a file": (in_file("config.seed = = 1"), "config.py, line 7: invalid syntax"),
    "unknown part": (
        in_file("config.data.source = part('data.Digit')"),
        "There is no part 'data.Digit'; did you mean 'data.Digits'?",
    ),
    "unknown part on the command line": (
        on_tiny("--config.data.source.kind=data.ImageFoldr"),
        "There is no part 'data.ImageFoldr'; did you mean 'data.ImageFolder'?",
    ),
    "unknown argument of a part": (
        in_file("config.system.mask = part('masking.Uniform', ration=0.5)"),
        "masking.Uniform has no argument 'ration'; did you mean 'ratio'?",
    ),
    "unknown flag": (on_tiny("--workdri=x"), "workdri"),
    "wrong type": (
        on_tiny("--config.train.batch_size=many"),
        "config.train.batch_size cannot be 'many': give a value of the type int",
    ),
    "stray argument": (on_tiny("stray"), "Unexpected argument 'stray'"),
    "missing config": (["--workdir={folder}/run"], "--config=FILE.py"),
    "missing config file": (
        ["--config={folder}/absent.py", "--workdir={folder}/run"],
        "/absent.py': give --config=FILE.py",
    ),
    "missing variant": ([f"--config={MAE}:B16", "--workdir={folder}/run"], "'B16'"),
    "missing workdir": ([f"--config={MAE}:tiny"], "Give --workdir=VALUE: directory of the run."),
    "empty folder": (
        in_file("config.data.source = part('data.ImageFolder', path='{folder}/images')"),
        "holds no images",
    ),
    "folder that is not there": (
        in_file("config.data.source = part('data.ImageFolder', path='{folder}/nowhere')"),
        "There is no folder",
    ),
    "split that is not there": (on_tiny("--config.data.train_split=tarin"), "train"),
    "smaller than a patch": (
        on_tiny("--config.data.inputs.image.size=(1, 1)"),
        "smaller than a patch",
    ),
    "not whole patches": (
        on_tiny("--config.data.inputs.image.size=(9, 8)"),
        "not divisible by the patch",
    ),
    "mask none": (on_tiny("--config.system.mask.ratio=0.0"), "masks none of the 16 tokens"),
    "mask all": (on_tiny("--config.system.mask.ratio=1.0"), "masks all of the 16 tokens"),
    "mask nearly all": (on_tiny("--config.system.mask.ratio=0.99"), "masks all of the 16 tokens"),
    "one value per patch": (
        on_tiny("--config.system.encoder.patch_size=(1, 1)"),
        "more than one value per patch",
    ),
    "heads": (on_tiny("--config.system.encoder.heads=3"), "not divisible by 3 attention heads"),
    "batch on the mesh": (on_tiny("--config.train.batch_size=63"), "not divisible by 2 devices"),
    "evaluated batch": (on_tiny("--config.eval.batch_size=63"), "not divisible by 2 devices"),
    "mesh": (on_tiny("--config.parallel.mesh.fsdp=3"), "does not fit 2 devices"),
    "batch larger than the data": (on_tiny("--config.train.batch_size=2000"), "fewer than one"),
    "another model": (on_tiny("--config.system.encoder.width=32"), "system.encoder.width is 16"),
    "another model's checkpoint": (on_tiny(), "another model"),
    "workdir below a file": (
        [f"--config={MAE}:tiny", "--workdir={folder}/file/run"],
        "cannot be written",
    ),
    "workdir is a file": ([f"--config={MAE}:tiny", "--workdir={folder}/file"], "cannot be written"),
    "duration": (on_tiny("--config.train.duration=3 weeks"), "'3 weeks' is not a duration"),
    "warm-up": (on_tiny("--config.schedule.warmup=soon"), "schedule.warmup = 'soon'"),
    "no step": (on_tiny("--config.train.duration=0 epochs"), "less than one step"),
    "non-finite policy": (on_tiny("--config.train.non_finite=ignore"), "raise, skip, rollback"),
    "precision": (on_tiny("--config.system.encoder.dtype=float8"), "not 'float8'"),
}
# In whole processes, as a user starts them: mistakes that different layers notice.
ALONE = ("unknown key", "missing workdir", "mask all", "another model's checkpoint")


def snapshot(folder):
    """{path: content} of a folder, None for folders in it; {} if there is none.

    What Python keeps of a config file that it has compiled is left out.
    """
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
        if "__pycache__" not in p.parts
    }


def set_the_scene(name, folder):
    """Makes what a case finds; returns its flags."""
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "file").write_text("not a directory")
    flags = CASES[name][0]
    line, flags = ("pass", flags) if flags[0].startswith("--") else (flags[0], flags[1:])
    line = line.replace("{folder}", str(folder))
    (folder / "config.py").write_text(CONFIG_FILE.format(mae=str(MAE), line=line))
    run = folder / "run"
    if name == "another model":
        run.mkdir()
        config = runpy.run_path(str(MAE))["get_config"]("tiny")
        (run / "config.json").write_text(to_json(config))
        (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
    if name == "another model's checkpoint":
        checkpoints = Checkpoints(run / "checkpoints")
        checkpoints.save(3, {"variables": {"params": {"kernel": jnp.zeros((3, 4))}}})
        checkpoints.close()
    return [flag.replace("{folder}", str(folder)) for flag in flags]


def check(name, done, before, after):
    errors = done.stderr
    assert errors.startswith("error: "), errors
    assert errors.count("\n") == 1, errors
    assert errors.endswith((".\n", "?\n")), errors
    assert CASES[name][1] in errors
    assert "Traceback" not in done.stdout + errors
    assert done.returncode == 1
    assert "step was compiled" not in done.stdout
    assert after == before


@pytest.mark.parametrize("name", CASES)
def test_mistake(tmp_path, name):
    flags = set_the_scene(name, tmp_path)
    before = snapshot(tmp_path)
    done = commands.run("train", *flags, devices=2)
    check(name, done, before, snapshot(tmp_path))


@pytest.mark.parametrize("name", ALONE)
def test_mistake_in_a_process_of_its_own(tmp_path, name):
    flags = set_the_scene(name, tmp_path)
    before = snapshot(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "maskjax.train", *flags],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    check(name, done, before, snapshot(tmp_path))
