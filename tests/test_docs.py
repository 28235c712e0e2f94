"""The documents show the code of the tree, and count it right."""

import ast
import doctest
import io
import re
import textwrap
import tokenize
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted((REPOSITORY / "docs").glob("*.md"))
# <!-- path: name, Class.method --> or <!-- path -->, then the block with that code.
SHOWN = re.compile(r"<!-- (\S+\.py)(?:: ([\w., ]+))? -->\n```python\n(.*?)\n```", re.DOTALL)
# <!-- signature: path: name, Class.method -->, then a block with their stubs, in this order.
SIGNED = re.compile(r"<!-- signature: (\S+\.py): ([\w., ]+) -->\n```python\n(.*?)\n```", re.DOTALL)
COUNTED = re.compile(r"^\| \[`([^`]+\.py)`\][^|]*\|.*\| (\d+) \|$", re.MULTILINE)


def shown():
    return [
        pytest.param(path, names, code, id=f"{document.stem}-{path}-{names}")
        for document in DOCUMENTS
        for path, names, code in SHOWN.findall(document.read_text())
    ]


def source(path, names):
    """Returns a file, or the definitions of some of its names as they are written there."""
    text = (REPOSITORY / path).read_text()
    if not names:
        return text.rstrip("\n")
    return "\n\n\n".join(definition(text, name.strip()) for name in names.split(","))


def definition(text, name):
    node = ast.parse(text)
    for part in name.split("."):
        node = next(n for n in node.body if getattr(n, "name", None) == part)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def signature(function):
    """Returns arguments and result of a function, whether or not their types are in quotes."""
    for node in ast.walk(function.args):
        if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Constant):
            node.annotation = ast.parse(node.annotation.value, mode="eval").body
    returns = function.returns
    if isinstance(returns, ast.Constant) and isinstance(returns.value, str):
        returns = ast.parse(returns.value, mode="eval").body
    return ast.dump(function.args), ast.dump(returns)


def lines_of_code(text):
    """Counts lines that are neither blank nor comment nor docstring."""
    documented = ast.Module, ast.ClassDef, ast.FunctionDef
    skipped = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            skipped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*layout, tokenize.ENDMARKER):
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - skipped)


@pytest.mark.parametrize(("path", "names", "code"), shown())
def test_code_is_that_of_the_tree(path, names, code):
    assert code == source(path, names)


def signed():
    return [
        pytest.param(path, names, code, id=f"{document.stem}-{path}-{names}")
        for document in DOCUMENTS
        for path, names, code in SIGNED.findall(document.read_text())
    ]


@pytest.mark.parametrize(("path", "names", "code"), signed())
def test_signature_is_that_of_the_tree(path, names, code):
    stubs = ast.parse(code).body
    names = [name.strip() for name in names.split(",")]
    assert [stub.name for stub in stubs] == [name.rpartition(".")[2] for name in names]
    for stub, name in zip(stubs, names, strict=True):
        defined = ast.parse(definition((REPOSITORY / path).read_text(), name)).body[0]
        assert signature(stub) == signature(defined), name


@pytest.mark.long
def test_examples_run_and_show_what_they_give(tmp_path, monkeypatch):
    """Those of docs/api.md, one after the other, in a directory of their own."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, run = doctest.testfile(
        str(REPOSITORY / "docs" / "api.md"), module_relative=False, optionflags=options
    )
    assert run > 40 and not failed


def test_code_blocks_are_marked():
    """Python that is not compared with the tree would rot."""
    for document in DOCUMENTS:
        text = document.read_text()
        marked = len(SHOWN.findall(text)) + len(SIGNED.findall(text))
        assert text.count("```python") == marked, document.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_lines_are_counted_right(document):
    for path, count in COUNTED.findall(document.read_text()):
        assert lines_of_code((REPOSITORY / path).read_text()) == int(count), path


def test_lines_of_code():
    text = '"""Doc."""\n\nx = 1  # why\n# comment\n\ndef f():\n    """Doc\n    more."""\n'
    text += '    return """a\nb"""'
    assert lines_of_code(text) == 4


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_linked_files_exist(document):
    for link in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
        assert (document.parent / link).exists(), link


def test_adding_a_system_takes_about_sixty_lines():
    document = (REPOSITORY / "docs" / "add_a_system.md").read_text()
    assert len(SHOWN.findall(document)) == 4
    counts = dict(COUNTED.findall(document))
    assert set(counts) == {"configs/colormae.py", "maskjax/masking/coloured.py"}
    assert int(counts["configs/colormae.py"]) <= 60
