"""The one tree of defaults, and the rules by which a configuration becomes objects.

A configuration is an `ml_collections.ConfigDict`. Whatever can be exchanged (a source of data, a
mask sampler, an encoder, a term of the objective, ...) is a *part*: a section that names a class
with `kind` and lists every argument of that class. `part` writes such a section, `build` turns it
into the object. The import path inside `maskjax` is the registry: `part("masking.Uniform")` is the
class `maskjax.masking.Uniform`, so a part is added by writing it and exporting it from its package.
"""

import dataclasses
import difflib
import importlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from maskjax.errors import UserError

ConfigDict = ml_collections.ConfigDict


def default_config() -> ConfigDict:
    """Returns every key that exists, with its default: an MAE ViT-B/16 on 224 x 224 colour images.

    The result is locked: a config file changes values, it cannot invent keys.
    """
    c = ConfigDict()
    c.name = "mae"  # of the run, in reports and logs
    c.seed = 0  # decides everything: initialisation, data order, augmentation, masks

    # What is read, and what the model sees of it.
    c.data = ConfigDict()
    c.data.source = part("data.TFDS", name="imagenet2012")  # or data.Digits, ImageFolder, Arrays
    c.data.train_split = "train"
    c.data.test_split = config_dict.placeholder(str)  # for evaluation; None: no evaluation
    c.data.inputs = ConfigDict(dict(image=part("data.Image")))  # by the name in the records
    c.data.workers = 0  # processes that decode; 0: threads of the main process only
    c.data.threads = 8  # reading threads of each process
    c.data.prefetch = 64  # records that are read ahead
    c.data.corrupt_limit = 0.001  # share of unreadable records from which the run stops

    # The published method: networks, masks, targets, terms.
    c.system = part(
        "systems.MaskedAutoencoder",
        encoder=part("models.ViT"),
        decoder=part("models.MAEDecoder"),
        mask=part("masking.Uniform"),
        targets=dict(pixels=part("targets.NormalisedPixels")),
        terms=dict(
            reconstruction=part(
                "objectives.MaskedRegression",
                prediction="decoder.masked",
                target="targets.pixels",
            )
        ),
    )

    # Durations are "40 epochs", "500 steps", "1e6 examples" or "5 percent" (of the training).
    c.train = ConfigDict()
    c.train.duration = "800 epochs"
    c.train.batch_size = 4096  # examples a step, over all devices
    c.train.accumulate = 1  # micro-batches a step; changes memory, not the gradient
    c.train.non_finite = "raise"  # or "skip" the update, or "rollback" to the last checkpoint
    c.train.non_finite_limit = 3  # skips in a row, or rollbacks in all, until the run stops

    c.optimizer = part("training.AdamW")  # moments, decay, clipping
    c.schedule = part("training.WarmupCosine")  # learning rate as a function of the step

    c.parallel = ConfigDict()
    # Sizes of the axes; -1: what is left; slice=-1: as many slices as there are.
    c.parallel.mesh = ConfigDict(dict(slice=1, data=-1, fsdp=1, tensor=1))
    c.parallel.fsdp_min_size = 2**16  # parameters with fewer values are not split over fsdp
    c.parallel.rules = ()  # what tensor splits: (regex, axes), before those of parallel/rules.py
    c.parallel.max_replicated = config_dict.placeholder(float)  # share of the bytes; None: any
    c.parallel.keep_memory = True  # of steps on CPUs; False suits very short ones

    c.checkpoint = ConfigDict()
    c.checkpoint.every = "1 epochs"
    c.checkpoint.keep_last = 2  # newest checkpoints kept
    c.checkpoint.keep_every = config_dict.placeholder(
        str
    )  # checkpoints kept for ever, e.g. "100 epochs"
    c.checkpoint.asynchronous = True

    c.eval = ConfigDict()
    c.eval.every = config_dict.placeholder(str)  # None: only at the end. Such steps are saved
    c.eval.source = ConfigDict()  # another source of labelled data; empty: data.source
    c.eval.train_split = config_dict.placeholder(str)  # what probes learn from; None: as trained on
    c.eval.batch_size = 512
    c.eval.max_train_examples = config_dict.placeholder(int)  # None: the whole training split
    c.eval.evaluators = ConfigDict(
        dict(
            knn=part("evaluation.KNN"),
            linear=part("evaluation.LinearProbe"),
            spread=part("evaluation.Spread"),
        )
    )
    c.eval.baselines = ("raw", "random")  # evaluated once, at the end, for comparison

    c.log = ConfigDict()
    c.log.every = "50 steps"
    c.log.tensorboard = True
    c.log.pictures = 8  # examples drawn; 0: none
    c.log.pictures_every = config_dict.placeholder(str)  # None: only at the end
    return c.lock()


def part(kind: str, **arguments: Any) -> ConfigDict:
    """Returns the section that describes one part, with all its arguments.

    Args:
      kind: `package.Class`, a dataclass or Flax module that `maskjax.package` exports.
      **arguments: values that differ from the defaults of the class; nested parts included.

    Raises:
      UserError: no such part or argument; the message names the nearest that exists.
    """
    fields = _fields(kind)
    _check_arguments(kind, arguments)
    section = ConfigDict(dict(kind=kind))
    for name, (hint, default) in fields.items():
        value = arguments.get(name, default)
        if value is dataclasses.MISSING:
            raise UserError(f"{kind} needs the argument '{name}': give it in the config.")
        if value is None and (accepted := _optional_type(hint)) is not None:
            value = config_dict.placeholder(accepted)
        elif isinstance(value, Mapping):
            value = ConfigDict(value)
        elif dataclasses.is_dataclass(value):
            value = _section(value)
        section[name] = value
    return section


def build(section: Any, **extra: Any) -> Any:
    """Constructs what a section describes; nested parts first.

    Args:
      section: a part, a mapping of parts, or a plain value (returned as it is).
      **extra: further arguments of the outermost part, objects that a config cannot hold.
    """
    if not _is_section(section):
        return section
    built = {name: build(value) for name, value in section.items() if name != "kind"}
    if "kind" not in section:
        return built
    _check_arguments(section["kind"], built)
    return _resolve(section["kind"])(**built, **extra)


def to_json(config: ConfigDict) -> str:
    """Returns the resolved configuration as JSON text."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """Reads what `to_json` wrote. Lists become tuples; a key that no longer exists is an error.

    A key that did not exist yet gets its default: new keys change nothing unless they are set.
    """
    config = _completed(ConfigDict(_tuples(json.loads(text)), convert_dict=True))
    _add_missing(config, default_config())
    validate(config)
    return config.lock()


def validate(config: ConfigDict) -> None:
    """Checks that a configuration has exactly the keys of `default_config`.

    Raises:
      UserError: an unknown or missing key, an unknown part or argument of a part.
    """
    _validate(config, default_config(), "config")


def flatten(config: Mapping | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b.c": value} for every leaf of a configuration."""
    flat = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        flat.update(flatten(value, path + ".") if _is_section(value) else {path: value})
    return flat


def differences(
    config: Mapping | ConfigDict, other: Mapping | ConfigDict
) -> dict[str, tuple[Any, Any]]:
    """Returns {"a.b.c": (value here, value there)} for the leaves that differ; None if absent."""
    here, there = flatten(config), flatten(other)
    paths = list(here) + [path for path in there if path not in here]
    return {p: (here.get(p), there.get(p)) for p in paths if here.get(p) != there.get(p)}


def unknown_key(path: str, known: Iterable[str]) -> str:
    """Returns the sentence about a key that does not exist, with the nearest that does."""
    return f"The config has no key '{path}'{nearest(path, known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Ends a sentence about an unknown name: with the closest known one, or with all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there are: {', '.join(sorted(known))}." if known else "."


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping | ConfigDict)  # a ConfigDict is no Mapping


def _is_part(value: Any) -> bool:
    """Whether a value is a part, or a mapping of parts."""
    return _is_section(value) and (
        "kind" in value or any(_is_section(each) and "kind" in each for each in value.values())
    )


def _resolve(kind: str) -> type:
    package, _, name = str(kind).partition(".")
    try:
        module = importlib.import_module(f"maskjax.{package}")
    except ModuleNotFoundError as error:
        if error.name != f"maskjax.{package}":
            raise
        raise UserError(f"There is no part '{kind}': maskjax has no package '{package}'.") from None
    if name not in getattr(module, "__all__", ()) or not dataclasses.is_dataclass(
        getattr(module, name)
    ):
        known = [n for n in module.__all__ if dataclasses.is_dataclass(getattr(module, n))]
        raise UserError(
            f"There is no part '{kind}'{nearest(kind, [f'{package}.{n}' for n in known])}"
        )
    return getattr(module, name)


def _fields(kind: str) -> dict[str, tuple[Any, Any]]:
    """Returns {argument: (type hint, default or MISSING)} of a part."""
    cls: Any = _resolve(kind)
    hints = typing.get_type_hints(cls)
    # Flax adds `parent` and `name` to every module.
    added = ("parent", "name") if hasattr(cls, "apply") else ()
    return {
        field.name: (
            hints[field.name],
            field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else field.default,
        )
        for field in dataclasses.fields(cls)
        # Objects that are not configuration are marked by the class itself.
        if field.init and field.name not in added and not field.metadata.get("runtime", False)
    }


def _section(built: Any) -> ConfigDict:
    """Returns the section of a part that is the default of another part's argument."""
    package = type(built).__module__.split(".")[1]
    kind = f"{package}.{type(built).__name__}"
    return part(kind, **{name: getattr(built, name) for name in _fields(kind)})


def _check_arguments(kind: str, names: Iterable[str]) -> None:
    fields = _fields(kind)
    for name in names:
        if name not in fields:
            raise UserError(f"{kind} has no argument '{name}'{nearest(name, fields)}")


def _optional_type(hint: Any) -> type | None:
    """Returns T for `T | None` where a flag can hold a T, else None."""
    if not isinstance(hint, types.UnionType) and typing.get_origin(hint) is not typing.Union:
        return None
    accepted = [typing.get_origin(a) or a for a in typing.get_args(hint) if a is not type(None)]
    plain = (bool, int, float, str, tuple)
    return accepted[0] if len(accepted) == 1 and accepted[0] in plain else None


def _validate(config: ConfigDict, reference: ConfigDict, path: str) -> None:
    for name, value in config.items():
        here = f"{path}.{name}"
        if name not in reference:
            raise UserError(unknown_key(here, [f"{path}.{n}" for n in reference]))
        if _is_part(value):
            _validate_parts(value)
        elif _is_section(reference[name]) and "kind" not in reference[name]:
            if not _is_section(value):
                raise UserError(f"'{here}' is a section with keys of its own, not a value.")
            _validate(value, reference[name], here)
    for name in reference:
        if name not in config:
            raise UserError(f"The config lacks the key '{path}.{name}': start from default_config.")


def _completed(section: Any) -> Any:
    """Returns a section with the defaults of arguments that its parts lack."""
    if not _is_section(section):
        return section
    values = {name: _completed(value) for name, value in section.items()}
    return part(values.pop("kind"), **values) if "kind" in values else ConfigDict(values)


def _add_missing(config: ConfigDict, reference: ConfigDict) -> None:
    """Adds the keys that a section lacks; in a mapping of parts, none is missing."""
    for name, value in reference.items():
        if name not in config:
            config[name] = value
        elif _is_section(value) and not _is_part(value) and _is_section(config[name]):
            _add_missing(config[name], value)


def _validate_parts(section: Any) -> None:
    """Checks a part, or a mapping of parts, and the parts inside."""
    if _is_section(section):
        if "kind" in section:
            _check_arguments(section["kind"], (name for name in section if name != "kind"))
        for value in section.values():
            _validate_parts(value)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
