"""Text every Python installation has: source code, reference documentation, questions and answers about functions.

Everything is read as text or through `ast`; no module is imported for its contents. The result depends on the Python
and the packages installed, and is the same every time on one machine.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

Record = dict[str, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}
_TESTS = {"test", "tests", "idle_test"}


def standard_library() -> Path:
    """Folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def library_files(*, tests: bool) -> list[str]:
    """Posix paths of the standard library's .py files, relative to its folder and sorted; with or without its tests."""
    root = standard_library()
    skip = _NOT_LIBRARY if tests else _NOT_LIBRARY | _TESTS
    names = (path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    return sorted(name for name in names if not skip.intersection(name.split("/")))


def fingerprint(name: str) -> str:
    """A hash that changes when the text of the generator ``name`` could: Python, library files, installed packages."""
    root = standard_library()
    whole = hashlib.sha256(f"{name} {sys.version} {Path(__file__).stat().st_mtime_ns}".encode())
    for path in library_files(tests=True):
        stat = (root / path).stat()
        whole.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    for package in sorted(f"{dist.name} {dist.version}" for dist in importlib.metadata.distributions()):
        whole.update(package.encode())
    return whole.hexdigest()


def records(name: str) -> Iterator[Record]:
    """The documents of the embedded source ``name``: {"id", "text", "path"}, in a fixed order."""
    return GENERATORS[name]()


def stdlib_code() -> Iterator[Record]:
    """One document per source file of the standard library, its tests included where they are installed."""
    for name in library_files(tests=True):
        text = _source(name)
        if text and not text.isspace():
            yield {"id": name, "text": text, "path": name}


def reference_docs() -> Iterator[Record]:
    """The language reference's topics, a page per library module, and the descriptions of installed packages."""
    pages: list[tuple[str, str]] = [(f"topics/{topic}", text) for topic, text in _topics().items()]
    for name in library_files(tests=False):
        tree = _tree(name)
        page = _reference_page(_module_name(name), tree) if tree else None
        if page:
            pages.append((f"modules/{_module_name(name)}", page))
    for dist in importlib.metadata.distributions():
        # Broken installations have no metadata, old ones keep the description in a header.
        if dist.metadata is not None:
            body = str(dist.metadata.get_payload() or "")  # type: ignore[attr-defined]
            if not body.strip() and "Description" in dist.metadata:
                body = str(dist.metadata["Description"])
            pages.append((f"packages/{dist.name}", body))
    seen: set[str] = set()
    for name, text in sorted(pages):
        text = _valid(text)
        if text and text not in seen and name not in seen:
            seen.update((name, text))
            yield {"id": name, "text": text, "path": name}


def docstring_qa() -> Iterator[Record]:
    """A question and its answer for every public function or method of the standard library that has a docstring."""
    for name in library_files(tests=False):
        tree = _tree(name)
        if tree is None:
            continue
        module = _module_name(name)
        for owner, function in _functions(tree):
            answer = _valid(ast.get_docstring(function) or "")
            if answer:
                call = f"{module}.{owner}{function.name}({_signature(function, bool(owner))})"
                text = f"Question: What does `{call}` do?\nAnswer: {answer}"
                yield {"id": f"{name}:{function.lineno}", "text": text, "path": name}


GENERATORS: dict[str, Callable[[], Iterator[Record]]] = {
    "stdlib_code": stdlib_code,
    "reference_docs": reference_docs,
    "docstring_qa": docstring_qa,
}


def _source(name: str) -> str | None:
    """Text of a library file under its coding cookie; None for the deliberately broken ones among the tests."""
    try:
        with tokenize.open(str(standard_library() / name)) as stream:
            text = stream.read()
        text.encode("utf-8")
    except (OSError, SyntaxError, UnicodeError, LookupError):
        return None
    return text


def _tree(name: str) -> ast.Module | None:
    text = _source(name)
    if not text:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in library strings
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _valid(text: str) -> str:
    """``text`` stripped, or '' when it holds code points that UTF-8 cannot carry."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return ""
    return text.strip()


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _topics() -> dict[str, str]:
    """The help topics of pydoc, read from the literal in its data file."""
    tree = _tree("pydoc_data/topics.py")
    for node in tree.body if tree else []:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            return dict(ast.literal_eval(node.value))
    return {}


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Public functions of a module and of its public classes, each with its owner's dotted prefix."""
    for node in tree.body:
        if isinstance(node, _FUNCTION) and not node.name.startswith("_"):
            yield "", node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, _FUNCTION) and not member.name.startswith("_"):
                    yield f"{node.name}.", member


def _signature(function: Function, method: bool) -> str:
    """The arguments as a caller sees them: no annotations, and no `self` or `cls` for a method."""
    args = function.args
    bound = method and next((arg.arg for arg in [*args.posonlyargs, *args.args]), "") in ("self", "cls")
    positional = [ast.arg(arg.arg) for arg in args.posonlyargs]
    ordinary = [ast.arg(arg.arg) for arg in args.args]
    if bound:
        del (positional or ordinary)[0]
    count = len(positional) + len(ordinary)
    plain = ast.arguments(
        posonlyargs=positional,
        args=ordinary,
        vararg=ast.arg(args.vararg.arg) if args.vararg else None,
        kwonlyargs=[ast.arg(arg.arg) for arg in args.kwonlyargs],
        kw_defaults=args.kw_defaults,
        kwarg=ast.arg(args.kwarg.arg) if args.kwarg else None,
        defaults=args.defaults[-count:] if count else [],
    )
    return ast.unparse(plain)


def _reference_page(module: str, tree: ast.Module) -> str | None:
    """Module docstring, then each public class and function with its docstring; None when nothing is documented."""
    head = ast.get_docstring(tree)
    parts = [f"{module}\n{'=' * len(module)}", *([inspect.cleandoc(head)] if head else [])]
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, *_FUNCTION)) or node.name.startswith("_"):
            continue
        doc = ast.get_docstring(node)
        if doc:
            title = (
                f"class {node.name}" if isinstance(node, ast.ClassDef) else f"{node.name}({_signature(node, False)})"
            )
            parts.append(f"{title}\n\n{inspect.cleandoc(doc)}")
    return "\n\n".join(parts) if len(parts) > 1 else None
