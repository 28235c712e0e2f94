import commands
import pytest

from maskjax.data import Text


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_tokenizer_is_trained(tmp_path, kind):
    pytest.importorskip("tokenizers")
    table = tmp_path / "t.tsv"
    table.write_text("title\ttext\n" + "a wing\tthe flow past a wing\n" * 3)
    out = tmp_path / "t.json"
    result = commands.run(
        "tokenizer", f"--files={table}", f"--out={out}", "--columns=title,text", f"--kind={kind}"
    )
    assert result.returncode == 0, result.stderr
    text = Text(length=16, tokenizer=str(out))
    assert f"has {text.vocabulary_size} tokens" in result.stdout
    assert text.decode(text.read("the wing", None)).strip() == "the wing"


def test_a_mistake_is_one_sentence():
    result = commands.run("tokenizer", "--files=absent.txt")
    assert result.returncode == 1
    assert result.stderr.strip().startswith("error: There is no file 'absent.txt'")
    assert result.stderr.count("\n") == 1
