"""RetroMAE: Pre-Training Retrieval-oriented Language Models Via Masked Auto-Encoder (EMNLP 2022).

Xiao, Liu, Shao, Cao, arXiv 2205.12035; and DupMAE, RetroMAE-2 (Liu et al., ACL 2023, 2305.02564).

    python -m maskjax.train --config=configs/retromae.py --workdir=gs://bucket/retromae \
        --config.data.source.path='corpus/*.txt' --config.data.inputs.text.tokenizer=bert.json
    python -m maskjax.tokenizer --files=DATA/cranfield_corpus.tsv --out=cranfield.json \
        --vocabulary=1024
    python -m maskjax.train --config=configs/retromae.py:cranfield --workdir=runs/cranfield \
        --config.data.source.path=DATA/cranfield_{split}.tsv \
        --config.eval.evaluators.cls.judgements=DATA/cranfield_qrels.tsv

The class token of a lightly masked text and a heavily masked rest are all that a decoder of one
layer sees of it. DupMAE also predicts the bag of words from the other tokens.

Arguments: `wiki` (default): blocks of 512 tokens of Wikipedia and BookCorpus, 8 epochs at batch
256; `msmarco`: passages of 150 tokens, 20 epochs at batch 1,024; the tokenizer is that of BERT
(uncased), as a JSON file. `cranfield`: 1,398 abstracts, minutes on two CPU cores, judged by the
documents that questions find; `stsb`: sentences, judged by the similarity of pairs. `tiny`:
seconds, bytes as tokens, to try things. With `dupmae-` before any of them it is DupMAE.

Published after fine-tuning: MS MARCO MRR@10 0.416 (RetroMAE, in-domain pretraining and
distillation); BEIR, mean nDCG@10 over its sets: 0.452 (RetroMAE), 0.491 (DupMAE).

Differences from the published code: it starts from BERT's weights, this from scratch; it also drops
attention weights.
"""

from maskjax.config import ConfigDict, default_config, part

DUPLEX = "dupmae-"


def get_config(arg: str = "wiki") -> ConfigDict:
    """Returns the configuration of a variant."""
    duplex, variant = arg.startswith(DUPLEX), arg.removeprefix(DUPLEX)
    small = {"tiny": _tiny, "cranfield": _cranfield, "stsb": _stsb}
    c = small[variant](duplex) if variant in small else _published(duplex, variant)
    c.name = f"{'dupmae' if duplex else 'retromae'}_{variant}"
    c.optimizer.no_decay = (r"(^|/)bias$", r"(^|/)scale$", r"output_bias$")
    return c


def _published(duplex: bool, variant: str) -> ConfigDict:
    passages = {"wiki": False, "msmarco": True}[variant]
    encoder = part("models.BERT", scan=True, remat="hidden")
    c = _config(duplex, encoder, part("models.PostNormBlock"))
    if passages:
        c.data.source = part("data.TextFiles", path="msmarco/collection.tsv")
        c.train.duration, c.train.batch_size = "20 epochs", 1024
    else:
        c.data.source = part("data.TextFiles", path="corpus/*.txt", unit="words", words=384)
        c.train.duration, c.train.batch_size = "8 epochs", 256
    length = 150 if passages else 512
    c.data.inputs.text = part("data.Text", length=length, tokenizer="bert-base-uncased.json")
    c.optimizer.b2, c.optimizer.weight_decay = 0.999, 0.01
    c.schedule = part("training.WarmupLinear", base_lr=1e-4, reference_batch=0, warmup="10 percent")
    return c


def _config(duplex: bool, encoder: ConfigDict, decoder: ConfigDict, masks: int = 256) -> ConfigDict:
    """What all variants share: the system, and evaluators that need no labels."""
    prediction = "objectives.MaskedCrossEntropy"
    terms = dict(
        encoder=part(
            prediction,
            logits="encoder.logits",
            target="targets.masked",
            mask="masks.encoder.valid",
        ),
        decoder=part(
            prediction,
            logits="decoder.logits",
            target="targets.text",
            mask="targets.predicted",
        ),
    )
    if duplex:
        terms["bag"] = part("objectives.BagOfWords", weight=0.1)
    c = default_config()
    c.system = part(
        "systems.RetroMAE",
        encoder=encoder,
        decoder=decoder,
        mask=part("masking.WholeWords", ratio=0.3),
        decoder_mask=part("masking.EnhancedDecoding", ratio=0.5, masks=masks),
        duplex=duplex,
        terms=terms,
    )
    c.data.inputs = ConfigDict(dict(text=part("data.Text")))
    c.eval.evaluators = ConfigDict(dict(spread=part("evaluation.Spread", feature="encoder.cls")))
    return c


def _tiny(duplex: bool) -> ConfigDict:
    """Descriptions of data sets that come with scikit-learn, 16 words each, as bytes."""
    encoder = part("models.BERT", width=16, depth=2, heads=2, positions=64)
    c = _config(duplex, encoder, part("models.PostNormBlock", heads=2), masks=8)
    path = "package:sklearn/datasets/descr/*.rst"
    c.data.source = part("data.TextFiles", path=path, unit="words", words=16)
    c.data.test_split = "test"
    c.data.inputs.text = part("data.Text", length=64)
    c.train.duration, c.train.batch_size = "2 epochs", 64
    c.schedule.base_lr, c.schedule.warmup = 1e-3, "5 percent"
    c.log.every = "1 steps"
    return c


def _small(duplex: bool, length: int, tokenizer: str) -> ConfigDict:
    """Width 64, for the small data sets."""
    encoder = part("models.BERT", width=64, depth=2, heads=4, positions=length, dropout=0.0)
    decoder = part("models.PostNormBlock", heads=4, dropout=0.0)
    c = _config(duplex, encoder, decoder, masks=8)
    c.data.test_split = "test"
    c.data.inputs.text = part("data.Text", length=length, tokenizer=tokenizer, crop="random")
    c.train.batch_size = 32
    c.optimizer.b2, c.optimizer.weight_decay, c.optimizer.clip_norm = 0.98, 0.01, 1.0
    c.schedule = part("training.WarmupLinear", base_lr=1e-3, reference_batch=0, warmup="10 percent")
    c.checkpoint.every = "100 epochs"
    return c


def _features(duplex: bool) -> tuple[str, ...]:
    return ("cls", "mean", "aggregate") if duplex else ("cls", "mean")


def _cranfield(duplex: bool) -> ConfigDict:
    """Abstracts; the test split are questions, judged by which documents are relevant to them."""
    c = _small(duplex, 64, "cranfield.json")
    columns = dict(text="text", number="doc_id|query_id")
    c.data.source = part("data.TextFiles", path="cranfield_{split}.tsv", columns=columns)
    c.data.train_split, c.data.test_split = "corpus", "queries"
    c.data.inputs.number = part("data.Scalar")
    c.eval.evaluators = ConfigDict(
        {
            name: part(
                "evaluation.DocumentRetrieval",
                judgements="cranfield_qrels.tsv",
                feature=f"encoder.{name}",
            )
            for name in _features(duplex)
        }
    )
    # One value for all: changing it for the class token changes it for the others.
    shared = c.eval.evaluators.cls.get_ref("judgements")
    for name in _features(duplex)[1:]:
        c.eval.evaluators[name].judgements = shared
    c.train.duration = "20 epochs"
    return c


def _stsb(duplex: bool) -> ConfigDict:
    """Sentences of the STS benchmark; trained on the first of each pair."""
    c = _small(duplex, 32, "stsb.json")
    columns = dict(text="sentence1", text2="sentence2", score="score")
    c.data.source = part("data.TextFiles", path="stsb_{split}.tsv", columns=columns)
    c.data.inputs.text2 = part("data.Text", length=32)
    c.data.inputs.score = part("data.Scalar")
    c.data.inputs.text2.tokenizer = c.data.inputs.text.get_ref("tokenizer")  # one value for both
    c.eval.evaluators = ConfigDict(
        {
            name: part("evaluation.Similarity", first=f"encoder.{name}", second=f"text2.{name}")
            for name in _features(duplex)
        }
    )
    c.train.duration = "10 epochs"
    c.train.batch_size = 128
    return c
