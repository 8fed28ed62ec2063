from typing import TypeVar

_T = TypeVar("_T")

def unseen(made: _T) -> _T: ...
