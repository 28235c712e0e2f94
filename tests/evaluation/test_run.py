import jax

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
