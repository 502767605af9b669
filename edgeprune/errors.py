"""Everything that can go wrong, as one tree; each error knows the exit code that it deserves.

EdgepruneError
├── InputError            2    what the user gave cannot be worked with
│   ├── RecipeError            a key, a value or an option of the recipe
│   ├── BudgetError            a budget that cannot be read
│   ├── DataError              a task's rows, columns or labels
│   ├── ModelError             a model folder, its weights or its tokenizer
│   └── OnnxError              an ONNX file or a bundle
├── Missed                1    the work was done and the answer is no
│   ├── Unreachable            no plan meets the budget; says the smallest that can be reached
│   ├── ParityError            an exported file answers unlike the model it came from
│   └── Diverged               training left the finite numbers
├── TargetError           4    a runtime or a device is not available, or broke
├── ResourceError         5    disk, memory or permission
└── RefusedError          6    refused for security or integrity

A message is one line: what (where) — why — remedy. The `code` is stable.
"""

from __future__ import annotations


class EdgepruneError(Exception):
    """The root of the tree; never raised itself."""

    exit_code = 70
    code = "EP000"

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        # One line, whatever a file name or a foreign library's message brought with it.
        super().__init__(" ".join(" — ".join(part for part in (what, why, remedy) if part).split()))

    def __str__(self) -> str:
        return str(self.args[0])


class InputError(EdgepruneError):
    exit_code = 2
    code = "EP100"


class RecipeError(InputError):
    code = "EP110"


class BudgetError(InputError):
    code = "EP120"


class DataError(InputError):
    code = "EP130"


class ModelError(InputError):
    code = "EP140"


class OnnxError(InputError):
    code = "EP150"


class Missed(EdgepruneError):  # noqa: N818 - an answer, not a fault
    exit_code = 1
    code = "EP200"


class Unreachable(Missed):
    code = "EP210"


class ParityError(Missed):
    code = "EP220"


class Diverged(Missed):
    code = "EP230"


class TargetError(EdgepruneError):
    exit_code = 4
    code = "EP400"


class ResourceError(EdgepruneError):
    exit_code = 5
    code = "EP500"


class RefusedError(EdgepruneError):
    exit_code = 6
    code = "EP600"
