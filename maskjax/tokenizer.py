"""Trains a tokenizer: `python -m maskjax.tokenizer --files='corpus/*.txt' --out=tokenizer.json`.

Files are text or tab-separated tables, of which the columns named by --columns are read. The result
is a JSON file of the library `tokenizers`, for `data.Text(tokenizer="tokenizer.json")`.
"""

from absl import flags

from maskjax import cli
from maskjax.data import TextFiles
from maskjax.data.vocabulary import KINDS, train_vocabulary

FILES = flags.DEFINE_string(
    "files", None, "Text files or tables; patterns, separated by commas.", required=True
)
OUT = flags.DEFINE_string("out", "tokenizer.json", "The file to write.")
VOCABULARY = flags.DEFINE_integer("vocabulary", 8192, "Number of tokens.", lower_bound=300)
KIND = flags.DEFINE_enum(
    "kind", "wordpiece", KINDS, "WordPiece in lower case, as BERT's, or BPE of bytes, as GPT-2's."
)
COLUMNS = flags.DEFINE_list("columns", ["text"], "Columns that are read of tables.")


def main() -> None:
    """Runs the command."""
    source = TextFiles(FILES.value, columns={name: name for name in COLUMNS.value})
    texts = (text for row in source.open("all").rows for text in row.values())
    size = train_vocabulary(texts, OUT.value, VOCABULARY.value, KIND.value)
    print(f"{OUT.value} has {size} tokens.")


if __name__ == "__main__":
    cli.run(main)
