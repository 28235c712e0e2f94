import jax
import pytest

from maskjax.config import ConfigDict, part
from maskjax.evaluation import Evaluation
from maskjax.parallel.mesh import make_mesh
from maskjax.systems import build_system
from test_configs import load


def conditions(variant, **changes):
    config = load(variant).unlock()
    config.update_from_flattened_dict(changes)
    mesh = make_mesh(config.parallel.mesh, jax.devices()[:1])
    return Evaluation(config, build_system(config), mesh).conditions()


def test_the_conditions_stand_beside_the_figures():
    lines = conditions("mae:tiny", **{"eval.max_train_examples": 700})
    assert lines[0] == "Evaluated on 700 training and 355 test examples, not augmented."
    assert lines[1].startswith("Pretrained with a decoder of width 16, depth 1, ")
    assert "knn: KNN of encoder.mean." in lines
    assert conditions("finetune_video:tiny") == [
        "Evaluated on 355 test examples, not augmented, 6 views of each.",
        "accuracy: Accuracy of head.probabilities.",
    ]
    assert conditions("mae:tiny", **{"data.test_split": None}) == []


def test_what_a_probe_is_to_tell_is_no_raw_data():
    config = load("mae:tiny").unlock()
    digits = part("data.Digits")
    config.data.source = part("data.Paired", sources=dict(image=digits, map=digits))
    seen = dict(image=config.data.inputs.image, map=part("data.ClassMap", size=(8, 8), classes=256))
    config.data.inputs = ConfigDict(seen)
    probe = part("evaluation.KNNSegmentation", classes=256)
    widths = []
    for evaluators in (dict(spread=part("evaluation.Spread")), dict(probe=probe)):
        config.eval.evaluators = ConfigDict(evaluators)
        mesh = make_mesh(config.parallel.mesh, jax.devices()[:1])
        evaluation = Evaluation(config, build_system(config), mesh)
        raw = evaluation._raw(evaluation._batches("test"), {"encoder.mean": None})["encoder.mean"]
        widths.append(raw.values.shape[1])
    assert widths == [128, 64]


class Stop(Exception):
    pass


def test_it_can_be_stopped_before_every_batch_and_evaluator():
    config = load("mae:tiny").unlock()
    config.update_from_flattened_dict({"eval.batch_size": 128, "eval.max_train_examples": 300})
    config.eval.evaluators = ConfigDict(dict(a=part("evaluation.Spread"), b=part("evaluation.KNN")))
    mesh = make_mesh(config.parallel.mesh, jax.devices()[:1])
    system = build_system(config)
    evaluation = Evaluation(config, system, mesh)
    variables = system.jitted_init(jax.random.key(0))
    calls = []

    def go_on(limit):
        calls.append(limit)
        if len(calls) == limit:
            raise Stop

    evaluation(variables, go_on=lambda: go_on(None))
    assert len(calls) == 3 + 3 + 2  # batches of 300 and 355 examples, evaluators
    for limit in (1, 5, 8):
        calls.clear()
        with pytest.raises(Stop):
            evaluation(variables, go_on=lambda: go_on(limit))  # noqa: B023
        assert len(calls) == limit
