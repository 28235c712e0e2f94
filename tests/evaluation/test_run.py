import jax

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
        raw = evaluation._raw("test", {"encoder.mean": None})["encoder.mean"]
        widths.append(raw.values.shape[1])
    assert widths == [128, 64]
