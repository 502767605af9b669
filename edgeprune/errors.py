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

A message is one line: what (where) — why — remedy. The `code` is stable. The list in a docstring
is what `edgeprune explain CODE` and docs/errors.md tell: a usual cause, a colon, and what to do.
"""

from __future__ import annotations


def _line(text: str) -> str:
    """One line that a terminal shows as it is, whatever a file's name brought with it."""
    return printable(" ".join(text.split()))


def printable(text: str, keeping: str = "") -> str:
    """Letters that a terminal would obey are escaped, but for those to keep."""
    return "".join(
        c if c.isprintable() or c in keeping else c.encode("unicode_escape").decode() for c in text
    )


class EdgepruneError(Exception):
    """Something that nobody foresaw: a bug in edgeprune.

    - the message names the fault: run it again with `--debug`, and report what that prints
    """

    exit_code = 70
    code = "EP000"

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        super().__init__(_line(" — ".join(part for part in (what, why, remedy) if part)))

    def __str__(self) -> str:
        return str(self.args[0])


class InputError(EdgepruneError):
    """What was given cannot be worked with.

    - an unknown command or option, or a value of the wrong kind: `edgeprune COMMAND --help` lists
      what is taken
    - `--out` is a file, or a folder of something else: give a new folder, or that of an earlier run
    - the run folder is in use by another process: wait for it, or give another `--out`
    - a report that is missing, cut short or of another version: run `edgeprune compress` again
    - a place to ship to that holds something else: give a new folder, or one of earlier releases
    - samples or a baseline in another form: give the file as `check` or `profile` wrote it
    """

    exit_code = 2
    code = "EP100"


class RecipeError(InputError):
    """A recipe, an option or a target cannot be read, or asks for what does not go together.

    - an unknown key: the message names the nearest known one, `edgeprune init` lists all
    - a value out of its range: `edgeprune compress --help` tells what an option takes
    - no YAML, no UTF-8, aliases, or over 1 MB: write plain keys and values
    - an unknown runtime or device: `edgeprune targets list` names all
    - a place that names a device and no folder: write DEVICE:ADDRESS:FOLDER, from `/` or `~` on
    - more tokens than the encoder has positions: give a smaller `--sequence`
    """

    code = "EP110"


class BudgetError(InputError):
    """A budget cannot be read, or cannot be applied here.

    - no unit, an unknown unit, a comma, or not above zero: write "12ms", "12 ms@p95" or "50%"; of
      a size "8MB" or "800kB"
    - a percentile outside 50 to under 100: write "@p95" for the 95th
    - a percentile that takes more inferences than there are: lower it, or give `--runs mlperf`
    - a share, where the unpruned model is not at hand: give milliseconds, or check a run folder
    """

    code = "EP120"


class DataError(InputError):
    """A task's rows, columns or labels cannot be learned from.

    - no such file, folder or data set, or none that is called train: check the path
    - no column of texts or labels, or several that could be: name them with `--text`, `--label`
    - a row that is ragged, no JSON, no UTF-8, or without a text: mend the line that is named
    - a label that training never saw, or a single class: add rows of it, or of another
    - over 1% of evaluation rows stand in the training rows: leave them out of training, or go on
      with `--allow-leakage`, which the report tells
    """

    code = "EP130"


class ModelError(InputError):
    """A pretrained model's folder, weights or tokenizer cannot be used.

    - no such folder, nor a model of that name on the hub or in its cache: check the path, the name
      and the network
    - a config.json that is missing, no JSON, or of another kind of model: give one of the encoders
      that the message lists
    - only pickled weights: load them where you trust them, and `model.save_pretrained(folder)`
    - a Git LFS pointer in place of weights: run `git lfs pull`
    - weights that are cut short, missing, of another shape, or not finite: copy them again
    - no tokenizer, or one with more tokens than the embedding has rows: give the model's own
    - a tokenizer of a kind that cannot be cut to a size: leave out `--size`
    """

    code = "EP140"


class OnnxError(InputError):
    """An ONNX file or a bundle cannot be used.

    - it is empty, cut short, text, or a Git LFS pointer: fetch or copy it again
    - it is over 2 GB: export the weights as external data beside it
    - external data that is missing or shorter than its tensor: copy it along with the file
    - an operator, an opset or a domain that neither onnx nor onnxruntime knows: export it again,
      at an older opset
    - a graph with a cycle, without inputs or outputs, or with impossible dimensions: export it
      again
    - weights that are not numbers (NaN): export it again from a model that was trained well
    - a folder without edgeprune.json is no bundle: give the `bundle` of a run
    """

    code = "EP150"


class Missed(EdgepruneError):  # noqa: N818 - an answer, not a fault
    """The work was done and the answer is no.

    - the file is over the size budget as the target's runtime has it: give a larger `--size`
    - the measured latency is over the budget: give a larger budget, or compress to a smaller one
    - the score is under the quality floor: give a larger budget, more rows, or `--effort thorough`
    """

    exit_code = 1
    code = "EP200"


class Unreachable(Missed):
    """No plan meets the budget; said before any training.

    - the budget is below what is left with all heads and FFN units removed: give the smallest
      budget that the message names, fewer tokens (`--sequence`), or a smaller encoder
    - the size is below what is left of the file then, with the tokens that have to be kept: give
      the smallest size that the message names, `--precision int8`, or a smaller encoder
    """

    code = "EP210"


class ParityError(Missed):
    """An exported file answers unlike the model it came from.

    - an exporter or a runtime that computes something else: report the model, and the versions of
      torch and onnxruntime
    """

    code = "EP220"


class Diverged(Missed):
    """Training left the finite numbers.

    - rows that are far from what the encoder knows, or broken weights: look at the data; try
      another `--seed`; the last finite weights lie in the snapshots that the message names
    """

    code = "EP230"


class TargetError(EdgepruneError):
    """A runtime, a device or an extra is not available, or broke.

    - a package that is not installed: the message has the line that installs it
    - a device that cannot be reached: look after its cable, its address and its keys
    - a runtime that crashed, hung, or lacks an operator: try another version of it, or another
      target
    """

    exit_code = 4
    code = "EP400"


class ResourceError(EdgepruneError):
    """Disk, memory or permission.

    - no space, a quota, or a read-only folder: make room, or choose another folder; then
      `edgeprune resume RUN` goes on where it stopped
    - too little disk or memory for the whole run, said before it begins: make room, choose another
      `--out` or TMPDIR, or a smaller encoder
    - a training that fits into memory in no batch: choose a smaller `--sequence` or encoder
    - a process that the system ended for want of memory: choose a smaller batch or sequence
    - a disk that answers with an I/O error: look after the disk; what was published is still whole
    """

    exit_code = 5
    code = "EP500"


class RefusedError(EdgepruneError):
    """Refused for security or integrity.

    - a config that asks for code to be run: remove the key, and look at who made the model
    - a path that leads out of its folder (`../`, absolute, a link): put the file into the folder
    - a bundle with a file that was changed, added or exchanged: copy the bundle again
    - a signature that does not hold: ask for the bundle at its source
    - a host, a serial or a file name that a shell could misread: rename it
    """

    exit_code = 6
    code = "EP600"
