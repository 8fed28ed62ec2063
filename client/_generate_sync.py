"""Writes sync.py from the async classes: `python -m trunkline.client._generate_sync`. A test compares the two.

Every public method of a class in FACES becomes one that waits: awaited on the connection's loop, in the signature's own
words. What a method returns is given its blocking face, too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Face:
    """How one class is faced."""

    module: str
    public: tuple[str, ...]
    """Methods and properties, in this order."""
    base: str = ""
    """A hand-written class to stand on instead of SyncFace."""
    posts: bool = False
    """Its methods are not waited for."""
    parts: tuple[tuple[str, str], ...] = ()
    """Module and name of classes that it stands on, whose methods may be among the public ones."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Where its methods and their words are."""
        return (self.module, *(module for module, _ in self.parts))


FACES = {
    "Registration": Face(
        "_registration",
        ("instance", "id", "lease_id", "ttl_ms", "error", "ended", "wait_ended", "declare", "drain", "close",
         "__aenter__", "__aexit__"),
    ),
    "View": Face(
        "_view",
        ("instances", "policy", "policies", "policy_of", "revision", "from_cache", "is_stale", "error",
         "staleness", "changes", "close", "__aenter__", "__aexit__"),
    ),
    "Delivery": Face("_delivery", ("ack", "nack", "term", "progress"), base="SyncDeliveryFields", posts=True),
    "Subscription": Face(
        "_subscription",
        ("name", "gaps", "in_hand", "reached", "opened", "next", "next_batch", "close", "__aenter__", "__aexit__", "__aiter__"),
        base="SyncConsumer",
    ),
    "Fetched": Face("_pull", ("settle", "__len__", "__iter__", "__aenter__", "__aexit__")),
    "Publisher": Face(
        "_publisher",
        ("in_flight", "closed", "epoch", "publish", "flush", "close", "__aenter__", "__aexit__"),
        base="SyncSender",
    ),
    "Choice": Face("_chooser", ("endpoint", "instance", "failed", "__enter__", "__exit__")),
    "Chooser": Face("_chooser", ("view", "choose", "close", "__aenter__", "__aexit__")),
    "Trunkline": Face(
        "_connection",
        ("namespace", "name", "target", "register", "watch", "channel", "chooser", "resolve", "publish", "publisher",
         "subscribe", "fetch", "update_subscription", "seek", "request", "request_counts", "outcome_counts", "schedule",
         "schedules", "unschedule", "apply_policy", "get_policy", "list_policies", "delete_policy", "policy_changes",
         "roll_back_policy", "wait_until_applied", "call"),
        base="SyncConnection",
        parts=(
            ("_request_calls", "RequestCalls"),
            ("_event_calls", "EventCalls"),
            ("_schedule_calls", "ScheduleCalls"),
            ("_policy_calls", "PolicyCalls"),
            ("_connected", "Connected"),
        ),
    ),
}  # fmt: skip

HAND_WRITTEN = {"BalancedChannel": "SyncBalancedChannel"}
NAMES = {**{name: f"Sync{name}" for name in FACES}, **HAND_WRITTEN}
"""What stands for what in signatures."""

RENAMED = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}

CONSUME = '''
    def consume(
        self, handler: Callable[[SyncDelivery], None], *, concurrency: int = 1, nack_delay_s: float | None = 1.0,
        finish_within_s: float = 10.0,
    ) -> None:  # fmt: skip
        """Handle deliveries in `concurrency` threads until closed or interrupted.

        A handler that returns acknowledges (unless it said something itself); one that raises is logged, and the event
        comes again after `nack_delay_s` (None: the subscription's backoff). At the end no more is taken, handlers that run
        are waited for, and what was not done within `finish_within_s` comes again.
        """
        self._consume(
            lambda delivery: handler(SyncDelivery(self._portal, delivery)),
            concurrency=concurrency,
            nack_delay_s=nack_delay_s,
            finish_within_s=finish_within_s,
        )
'''
SERVE = '''
    def serve_requests(
        self, filters: Iterable[str], handler: Callable[[Event], Event], *, name: str, stream: str = "events",
        concurrency: int = 16, ack_deadline_s: float | None = None, namespace: str | None = None,
    ) -> None:  # fmt: skip
        """Handle requests whose topic one of `filters` takes, in `concurrency` threads, until interrupted.

        Who serves by one `name` shares the work: it is a durable subscription. What the handler returns is the reply; what
        it raises, is raised at who asked. A request past its deadline is not handled; the reply of a handler that is still
        at it is not sent.
        """
        self._serve_requests(
            filters, handler, name=name, stream=stream, concurrency=concurrency, ack_deadline_s=ack_deadline_s,
            namespace=namespace,
        )  # fmt: skip
'''
FURTHER = {"Subscription": CONSUME.strip("\n"), "Trunkline": SERVE.strip("\n")}
"""Methods that no rule can derive and that need the generated classes."""

HEADER = '''"""The blocking face: the same calls for programs with threads. Generated by _generate_sync.py; edits are lost."""

from __future__ import annotations

from ._sync_base import SyncConnection, SyncConsumer, SyncDeliveryFields, SyncFace, SyncSender
from ._sync_channel import SyncBalancedChannel
'''


def generated() -> str:
    """The text of sync.py, formatted."""
    classes = [_class(name, face) for name, face in FACES.items()]
    body = "\n\n".join(classes)
    text = HEADER + "\n".join(_imports(body)) + "\n\n" + body + "\n"
    return _ruff(_ruff(text, "check", "--fix-only", "--quiet"), "format", "--quiet")


def _ruff(text: str, *command: str) -> str:
    ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(HERE / "sync.py"), "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout


def _imports(body: str) -> Iterator[str]:
    """The imports of the modules that are faced, as far as the body uses them."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    used |= {node.value.id for node in ast.walk(ast.parse(body)) if _is_dotted(node)}  # type: ignore[attr-defined]
    known: dict[str, str] = {}
    for module in dict.fromkeys(module for face in FACES.values() for module in face.modules):
        tree = _tree(module)
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                known |= {alias.asname or alias.name: f"from {source} import {alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                known |= {alias.name.split(".")[0]: f"import {alias.name.split('.')[0]}" for alias in node.names}
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known[node.targets[0].id] = f"from .{module} import {node.targets[0].id}"
            elif isinstance(node, ast.ClassDef):
                known[node.name] = f"from .{module} import {node.name}"
    known |= {"Iterator": "from collections.abc import Iterator"}
    return (known[name] for name in sorted(used & known.keys()))


def _is_dotted(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)


def _tree(module: str) -> ast.Module:
    return ast.parse((HERE / f"{module}.py").read_text())


def _class(name: str, face: Face) -> str:
    source = _source(face.module, name)
    methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for one in [*(_source(module, part) for module, part in face.parts), source]:
        methods |= {node.name: node for node in one.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    base = face.base or f"SyncFace[{name}]"
    parts = [f"class Sync{name}({base}):", _docstring(source, "    ")]
    parts += [_method(methods[public], face) for public in face.public]
    parts.append(FURTHER.get(name, ""))
    return "\n\n".join(part for part in parts if part)


def _source(module: str, name: str) -> ast.ClassDef:
    return next(node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)


def _docstring(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, indent: str) -> str:
    text = ast.get_docstring(node)
    if text is None:
        return ""
    for old, new in (("async with", "with"), ("async for", "for"), (r"\bawait ", ""), ("connect\\(", "connect_sync(")):
        text = re.sub(old, new, text)
    lines = text.splitlines()
    if len(lines) == 1:
        return f'{indent}"""{text}"""'
    return "\n".join([f'{indent}"""{lines[0]}', *(f"{indent}{line}".rstrip() for line in lines[1:]), f'{indent}"""'])


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef, face: Face) -> str:
    answer = ast.unparse(node.returns) if node.returns is not None else "None"
    is_property = any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)
    name = RENAMED.get(node.name, node.name)
    lines = ["    @property"] if is_property else []
    lines.append(f"    def {name}({_renamed(ast.unparse(node.args))}) -> {_renamed(answer)}:")
    lines.append(_docstring(node, " " * 8))
    lines.append(" " * 8 + _body(node, face, answer, is_property=is_property))
    return "\n".join(line for line in lines if line)


def _renamed(text: str) -> str:
    """Signatures in the blocking face's words."""
    text = text.replace("AsyncIterator", "Iterator")
    return re.sub(r"\b(" + "|".join(NAMES) + r")\b", lambda match: NAMES[match[0]], text)


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef, face: Face, answer: str, *, is_property: bool) -> str:
    given = _passed(node.args)
    target = f"self._async.{node.name}"
    if answer == "Self":
        return (
            f"self._portal.call({target})\n        return self"
            if _is_async(node)
            else f"self._portal.run({target})\n        return self"
        )
    if answer.startswith("AsyncIterator"):
        return f"return {_faced_each(answer, f'self._portal.iterate({target})')}"
    if is_property:
        return "return " + _faced(answer, f"self._portal.run(lambda: {target})")
    if face.posts:
        return f"self._portal.post({target}{given})"
    how = "call" if _is_async(node) else "run"
    if answer.startswith("Iterator"):
        return f"return {_faced_each(answer, f'self._portal.run({target}{given})')}"
    call = f"self._portal.{how}({target}{given})"
    return call if answer == "None" else "return " + _faced(answer, call)


def _is_async(node: ast.AST) -> bool:
    return isinstance(node, ast.AsyncFunctionDef)


def _passed(arguments: ast.arguments) -> str:
    """The arguments as they are passed on."""
    positional = [argument.arg for argument in arguments.args[1:]]
    named = [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    further = [] if arguments.kwarg is None else [f"**{arguments.kwarg.arg}"]
    return "".join(f", {one}" for one in [*positional, *named, *further])


def _faced(answer: str, expression: str) -> str:
    """The expression, its value given a blocking face if its class has one."""
    if answer in NAMES:
        return f"{NAMES[answer]}(self._portal, {expression})"
    if answer.startswith("list["):
        return f"[{_faced_each(answer, expression)[1:-1]}]"
    optional = answer.removesuffix(" | None")
    if optional != answer and optional in NAMES:
        return f"None if (found := {expression}) is None else {NAMES[optional]}(self._portal, found)"
    return expression


def _faced_each(answer: str, expression: str) -> str:
    item = answer[answer.index("[") + 1 : -1]
    return f"({NAMES[item]}(self._portal, one) for one in {expression})" if item in NAMES else expression


if __name__ == "__main__":
    (HERE / "sync.py").write_text(generated())
