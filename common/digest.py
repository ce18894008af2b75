"""A digest of the code behind a question's results, the same on every Python."""

import ast
import hashlib
import io
import json
import tokenize

from common import presets

# Modules that decide no result: they draw, keep records, or fetch pinned files.
NOT_DECISIVE = {
    "archives.py",
    "digest.py",
    "figures.py",
    "interactive.py",
    "plots.py",
    "presets.py",
    "results.py",
    "source.py",
    "sweep.py",
}


def code_sha256(question):
    """Computes one sha256 of the code that decides the results of a question.

    It covers the question's modules, `common/data.py`, and the modules of this
    repository that those import, directly or not. `NOT_DECISIVE` modules, comments,
    docstrings and blank lines are left out.
    """
    paths = sorted((presets.CODE / question).glob("*.py"))
    paths.append(presets.CODE / "common" / "data.py")
    parts = {}
    for path in paths:  # which grows
        if path.name in NOT_DECISIVE:
            continue
        text = path.read_text("utf-8")
        lines = code_lines(text)
        if lines:
            parts[path.relative_to(presets.CODE).as_posix()] = lines
        paths += [found for found in _imports(ast.parse(text)) if found not in paths]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def code_lines(text):
    """Lists the lines of a module without comments, docstrings and blank lines.

    They are cut out by position, so that the lines do not depend on how a version of
    Python prints a syntax tree. Lines of other strings stay, blank ones included.
    """
    lines = [line.encode() for line in text.split("\n")]
    kept, docstrings = set(), []
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        )
        if documented and ast.get_docstring(node, clean=False) is not None:
            docstrings.append(node.body[0].value)
        elif isinstance(node, (ast.Constant, ast.JoinedStr)):
            kept.update(range(node.lineno - 1, node.end_lineno - 1))
    for node in docstrings:
        first, last = node.lineno - 1, node.end_lineno - 1
        rest = lines[last][node.end_col_offset :]
        kept.difference_update(range(first, last + 1))
        start = lines[first][: node.col_offset]
        lines[first : last + 1] = [start + rest] + [b""] * (last - first)
    lines = [line.decode() for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0] - 1
            lines[line] = lines[line].rstrip().removesuffix(token.string)
    return [
        line if i in kept else line.rstrip()
        for i, line in enumerate(lines)
        if i in kept or line.strip()
    ]


def _imports(tree):
    """Returns the paths of this repository's modules that a module imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    paths = {
        presets.CODE.joinpath(*name.split(".")).with_suffix(".py") for name in names
    }
    return sorted(path for path in paths if path.exists())
