import dataclasses
import importlib

import pytest
from ml_collections import ConfigDict

from maskjax.config import (
    build,
    default_config,
    differences,
    flatten,
    from_json,
    part,
    to_json,
    validate,
)
from maskjax.errors import UserError
from maskjax.masking import Uniform


def test_a_part_lists_every_argument_and_builds_the_class():
    section = part("masking.Uniform", ratio=0.5)
    assert section.to_dict() == {"kind": "masking.Uniform", "ratio": 0.5, "shared": False}
    assert build(section) == Uniform(0.5)
    assert "clip_norm" in part("training.AdamW") and part("training.AdamW").clip_norm is None


@pytest.mark.parametrize(
    "package", ["data", "evaluation", "masking", "models", "objectives", "systems", "targets"]
)
def test_no_part_has_an_argument_of_the_name_that_says_which_part_it_is(package):
    package = importlib.import_module(f"maskjax.{package}")
    parts = [getattr(package, name) for name in package.__all__]
    parts = [part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)]
    assert parts
    for each in parts:
        assert "kind" not in {field.name for field in dataclasses.fields(each)}, each


def test_nested_parts_are_built_first():
    system = build(default_config().system)
    assert system.mask == Uniform(0.75)
    assert system.terms["reconstruction"].prediction == "decoder.masked"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: part("masking.Unifrom"), ["masking.Unifrom", "did you mean 'masking.Uniform'"]),
        (lambda: part("maskng.Uniform"), ["no package 'maskng'"]),
        (lambda: part("masking.Uniform", ration=1), ["'ration'", "did you mean 'ratio'"]),
        (lambda: part("objectives.MaskedRegression"), ["needs the argument 'prediction'"]),
        (lambda: part("masking.mask_from_scores"), ["There is no part"]),
        (lambda: build(ConfigDict(dict(kind="os.system"))), ["no package 'os'"]),
        (lambda: build(ConfigDict(dict(kind="masking.Uniform", x=1))), ["no argument 'x'"]),
    ],
)
def test_unknown_names_are_one_sentence_with_the_nearest(make, words):
    with pytest.raises(UserError) as error:
        make()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_json_round_trip_keeps_types():
    config = default_config()
    again = from_json(to_json(config))
    assert flatten(again) == flatten(config)
    assert isinstance(again.data.inputs.image.size, tuple)
    assert again.is_locked


def test_validate_names_the_nearest_key():
    config = default_config().unlock()
    config.train.batch_sise = 3
    with pytest.raises(UserError, match=r"config.train.batch_sise.*config.train.batch_size"):
        validate(config)


def test_validate_sees_into_parts():
    config = default_config().unlock()
    config.system.mask.ration = 3
    with pytest.raises(UserError, match="ration"):
        validate(config)
    config = default_config().unlock()
    del config.train["duration"]
    with pytest.raises(UserError, match=r"lacks the key 'config.train.duration'"):
        validate(config)


def test_differences_are_by_leaf():
    config, other = default_config(), default_config()
    other.system.mask.ratio = 0.6
    assert differences(config, other) == {"system.mask.ratio": (0.75, 0.6)}
    assert differences(config, config) == {}
