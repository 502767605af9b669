"""The `edgeprune` command: each function parses, makes one library call, shows, and exits.

Nothing heavy is imported before a command runs, so that `edgeprune --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import edgeprune
from edgeprune.errors import EdgepruneError, InputError, ResourceError, TargetError
from edgeprune.interruption import none_lost
from edgeprune_cli import show

if TYPE_CHECKING:
    from edgeprune import Progress, Recipe, Report

EXIT_CODES = (
    "Exit codes: 0 met, 1 missed, 2 bad input or usage, 3 inconclusive, 4 target or extra not "
    "available, 5 disk or memory, 6 refused, 70 a bug, 130 interrupted."
)
# What the system says when it will not write: no space, no quota, read-only, no permission.
FULL_OR_CLOSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

# What it says of a name that no file can have.
UNUSABLE_NAME = {errno.ENAMETOOLONG, errno.ELOOP}

# typer carries its own copy of click or uses the installed one, by its version.
UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="edgeprune",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
targets_app = typer.Typer(help="What models can be measured on.", no_args_is_help=False)
app.add_typer(targets_app, name="targets")
runs_app = typer.Typer(help="The run folders that are there.", no_args_is_help=False)
app.add_typer(runs_app, name="runs")

WHAT, DATA, METHOD = "What", "Data", "Method"
PRECISION, MEASURING, THIS_CALL = "Precision and quality", "Measuring", "This call"
DEMANDS, OUTPUTS = "Demands", "Outputs"


def _option(help: str, panel: str, default: object = None, choices: str = "") -> Any:
    """An option of the recipe. It is left out unless given, so its default is only told."""
    help += f" One of: {choices}." if choices else ""
    help += f" Default: {default}." if default is not None else ""
    return typer.Option(help=help, rich_help_panel=panel, show_default=False)


def _flag(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel=THIS_CALL)


Subject = Annotated[
    Path, typer.Argument(metavar="PATH", help="A run folder, a bundle or an ONNX file.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
Target = Annotated[
    str | None,
    _option(
        "Where latency counts: a runtime, or runtime@device (`targets list`), with an option as "
        "in openvino:bf16.",
        WHAT,
        "ort",
    ),
]
Tokens = Annotated[int | None, _option("Tokens a row is measured and cut at.", MEASURING, 128)]
Batch = Annotated[int | None, _option("Rows per inference when measuring.", MEASURING, 1)]
Threads = Annotated[int | None, _option("Threads of the runtime when measuring.", MEASURING, 1)]
Runs = Annotated[
    str | None,
    _option(
        "How many launches and inferences a measurement takes.",
        MEASURING,
        "standard",
        choices="rapid, quick, standard, mlperf",
    ),
]
Restart = Annotated[
    bool, _flag("--restart", "Redo every stage instead of taking up what is there.")
]
Live = Annotated[
    bool, _flag("--watch", "Draw the stages as a list that moves; the default on a terminal.")
]
Json = Annotated[bool, _flag("--json", "Print the result as JSON on stdout.")]
Quiet = Annotated[bool, _flag("--quiet", "Print nothing but errors.")]
# `main` looks for it among the words itself, as it must work wherever a command fails.
Debug = Annotated[bool, _flag("--debug", "Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int:
    """Compress transformer encoders to a latency budget in milliseconds, and prove it is met.

    \b
    edgeprune demo                            the whole job on a small example
    edgeprune init                            a commented recipe to start from
    edgeprune compress recipe.yaml --budget 12ms
    edgeprune check runs/mrpc --budget "12 ms@p95"
    """
    if version:
        show.out(f"edgeprune {edgeprune.__version__}")
    elif context.invoked_subcommand is None:
        show.out(context.get_help())
        return 2
    return 0


@app.command()
def compress(
    context: typer.Context,
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe; options override its keys.")
    ] = None,
    model: Annotated[str | None, _option("Encoder: a folder, a hub name, or `demo`.", WHAT)] = None,
    task: Annotated[
        str | None,
        _option(
            "Labelled rows: a folder with train/validation/test files, one file (JSON Lines, CSV, "
            "TSV, Parquet), or the name of a `datasets` data set.",
            WHAT,
        ),
    ] = None,
    auxiliary: Annotated[
        list[str] | None,
        _option(
            "A related, bigger data set to learn from, or plain text (.txt); its columns are "
            "detected. Of several, or of those in a folder (`auto:DIR`), the one that promises "
            "most is taken.",
            WHAT,
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        _option(
            'Latency budget: "12ms", "12 ms@p95", or "50%" of the unpruned model. Several share '
            "one teacher, one latency table and one set of error curves.",
            WHAT,
            "50%",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        _option(
            "Where latency counts: a runtime, or runtime@device (`targets list`), with an option "
            "as in openvino:bf16. A budget must be met on each of several.",
            WHAT,
            "ort",
        ),
    ] = None,
    size: Annotated[
        str | None,
        _option(
            "Size budget of the model's file, as in 8MB or 800kB. It holds together with each "
            "latency budget: the vocabulary is cut to what is left, and more is pruned where that "
            "is too little.",
            WHAT,
        ),
    ] = None,
    out: Annotated[Path | None, _option("The run folder.", WHAT, "runs/edgeprune")] = None,
    text: Annotated[str | None, _option("Column of the text; detected if not named.", DATA)] = None,
    text_pair: Annotated[str | None, _option("Column of the second text of a pair.", DATA)] = None,
    label: Annotated[str | None, _option("Column of the label or score.", DATA)] = None,
    metric: Annotated[
        str | None,
        _option(
            "auto: accuracy for classes, Spearman's correlation for scores.",
            DATA,
            "auto",
            choices="auto, accuracy, f1, f1_macro, matthews, spearman, pearson",
        ),
    ] = None,
    train_size: Annotated[
        int | None,
        _option("Rows to train on: a seeded sample, stratified by class.", DATA),
    ] = None,
    auxiliary_size: Annotated[
        int | None, _option("Rows of the auxiliary task to use at most.", DATA, 8000)
    ] = None,
    vocabulary_text: Annotated[
        str | None,
        _option(
            "Plain text (.txt) of which every token is kept under a size budget, beside those of "
            "the training rows.",
            DATA,
        ),
    ] = None,
    allow_leakage: Annotated[
        bool | None,
        _option(
            "Go on although over 1% of evaluation rows stand in the training rows.", DATA, False
        ),
    ] = None,
    method: Annotated[
        str | None,
        _option(
            "What decides which heads and FFN units go.",
            METHOD,
            "obs",
            choices="obs, fisher, l0, magnitude, layerdrop, random, oneshot",
        ),
    ] = None,
    transfer_how: Annotated[
        str | None,
        _option(
            "How the auxiliary task is coupled with the target task in a training.",
            METHOD,
            "joint",
            choices="none, sequential, joint, meta, decompose",
        ),
    ] = None,
    transfer_what: Annotated[
        str | None,
        _option(
            "What is transferred: the jointly taught weights, the pooled activation statistics of "
            "the error curves, both; or masks, the plan by the auxiliary text alone.",
            METHOD,
            "both",
            choices="none, weights, stats, masks, both",
        ),
    ] = None,
    transfer_when: Annotated[
        str | None,
        _option(
            "In which stage the auxiliary task takes part; a guard switches it off "
            "where it does not help.",
            METHOD,
            "all",
            choices="teacher, prune, recover, all",
        ),
    ] = None,
    frozen_layers: Annotated[
        str | None,
        _option(
            "Layers, from the lowest, that stay as they are while the teacher is taught; auto: "
            "none, a third or two thirds, by short trials.",
            METHOD,
            0,
        ),
    ] = None,
    votes: Annotated[
        list[str] | None,
        _option(
            "Folders of earlier runs on similar tasks, with an encoder of the same shape: what "
            "their plans pruned hard is cheap to prune here.",
            METHOD,
        ),
    ] = None,
    order: Annotated[
        str | None,
        _option(
            "Of the teacher's coupled training: easy-first draws the target's rows by their loss "
            "after the training alone, the easiest third at first; interference lets all of "
            "several auxiliary tasks take part, one after the other, the least at odds together.",
            METHOD,
            "random",
            choices="random, easy-first, interference",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        _option(
            "How long to search and train.", METHOD, "standard", choices="quick, standard, thorough"
        ),
    ] = None,
    precision: Annotated[
        str | None,
        _option(
            "auto keeps int8 where it is faster and within the quality floor.",
            PRECISION,
            "fp32",
            choices="fp32, int8, auto",
        ),
    ] = None,
    floor: Annotated[
        float | None,
        _option("Quality floor, as a share of the unpruned model's score.", PRECISION, 0.98),
    ] = None,
    sequence: Tokens = None,
    batch: Batch = None,
    threads: Threads = None,
    runs: Annotated[
        str | None,
        _option(
            "How many launches and inferences a measurement takes; auto: quick at effort quick, "
            "else standard.",
            MEASURING,
            "auto",
            choices="auto, rapid, quick, standard, mlperf",
        ),
    ] = None,
    seed: Annotated[
        int | None, _option("Of samples, initial heads and batches.", METHOD, 0)
    ] = None,
    save_recipe: Annotated[
        Path | None, _option("Write what is asked for here as a recipe.", THIS_CALL)
    ] = None,
    dry_run: Annotated[
        bool, _flag("--dry-run", "Print stages, feasibility and expected minutes; write nothing.")
    ] = False,
    restart: Restart = False,
    watch: Live = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Make an encoder smaller until it meets a latency budget, measured on the target.

    \b
    edgeprune compress --model DIR --task data/mrpc --budget 50% --out runs/mrpc
    edgeprune compress recipe.yaml --budget 12ms --budget 8ms
    edgeprune compress recipe.yaml --budget "12 ms@p95" --precision auto --dry-run
    edgeprune compress recipe.yaml --budget 25% --precision int8 --size 8MB
    """
    from edgeprune.recipe import Recipe

    given = {key: value for key, value in context.params.items() if value not in (None, ())}
    asked = Recipe.read(recipe, {key: given[key] for key in Recipe.model_fields.keys() & given})
    if save_recipe is not None:
        asked.save(save_recipe)
    if dry_run:
        return _preview(asked, quiet=quiet)
    return _compress(asked, restart=restart, watch=watch, json=json, quiet=quiet)


def _preview(recipe: Recipe, *, quiet: bool) -> int:
    with show.progress(quiet=quiet) as progress:
        plan = edgeprune.dry_run(recipe, progress=progress)
    show.out("\n".join(plan.lines()))
    return 0 if plan.feasible else 1


def _compress(recipe: Recipe, *, restart: bool, watch: bool, json: bool, quiet: bool) -> int:
    def work(progress: Progress) -> list[Report]:
        return edgeprune.compress_all(recipe, progress=progress, restart=restart)

    return _judged(work, watch=watch, json=json, quiet=quiet)


def _judged(
    work: Callable[[Progress], list[Report]], *, watch: bool, json: bool, quiet: bool
) -> int:
    from edgeprune.report.report import exit_code

    with show.progress(quiet=quiet, live=watch) as progress:
        reports = work(progress)
    if json:
        show.out(_json(reports))
    elif not quiet:
        show.err("\n" + show.summary(reports))
    return exit_code(reports)


@app.command()
def resume(
    run: RunFolder,
    restart: Restart = False,
    watch: Live = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Go on with a run that was stopped, by its own recipe; exits as `compress` does.

    Its data must be what they were when it began, unless all of it is done again.
    """
    from edgeprune.compression import resume

    def work(progress: Progress) -> list[Report]:
        return resume(run, progress=progress, restart=restart)

    return _judged(work, watch=watch, json=json, quiet=quiet)


@app.command()
def status(
    run: RunFolder,
    watch: Annotated[
        bool, _flag("--watch", "Show it until the run ends, then what came of it.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Show how far a run has come, from any terminal, while it works or after; exits 0.

    \b
    edgeprune status runs/mrpc
    edgeprune status runs/mrpc --watch
    """
    from edgeprune.report.folder import read_reports
    from edgeprune.status import follow, read_status

    told = show.watch(follow(run)) if watch else read_status(run)
    if json:
        show.out(show.as_json(told.to_dict()))
    else:
        at_its_end = told.state == "finished" and (run / "report.json").is_file()
        show.out(show.status(told, read_reports(run) if at_its_end else ()))
    return 0


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put it all.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the data and of the run.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Write a small example, its data and its recipe, and compress it. Takes minutes.

    A second call in the same folder takes up where the first one stopped.
    """
    from edgeprune.demo import write_demo
    from edgeprune.recipe import Recipe

    recipe = folder / "recipe.yaml"
    if not recipe.is_file():
        recipe = write_demo(folder, seed)
    asked = Recipe.read(recipe, {"seed": seed})
    return _compress(asked, restart=False, watch=False, json=json, quiet=quiet)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Never overwritten.")] = Path("recipe.yaml"),
    debug: Debug = False,
) -> int:
    """Write a commented recipe: every key, what it means and its default."""
    from edgeprune.template import write_template

    write_template(file)
    show.err(f"wrote {file}: name your model and task in it, then `edgeprune compress {file}`")
    return 0


@app.command()
def ablate(
    recipe: Annotated[Path, typer.Argument(help="A recipe, as `init` writes it.")],
    grid: Annotated[
        str,
        typer.Option(
            help="What is changed, each alone: method, how, what, when, frozen, order; "
            "method=l0|fisher, frozen=2|auto."
        ),
    ] = "method,how,what,when",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds that every cell is run on.")] = 3,
    budget: Annotated[
        list[str] | None, typer.Option(help="In place of the recipe's; may be given again.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds at a time.", show_default="one for every four cores"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the result.")] = Path("runs/ablation"),
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Change one thing of a recipe at a time, and see what it does to the score.

    Every cell is a whole compress at the same budget. A call that was stopped goes on. Seeds that
    run at a time share the cores, and stand still while one of them measures.

    \b
    edgeprune ablate recipe.yaml --grid method,when --seeds 3 --budget 50% --budget 25%
    """
    from edgeprune.ablation import ablate as run
    from edgeprune.ablation import cells, to_markdown
    from edgeprune.recipe import Recipe

    asked = Recipe.read(recipe, {"budget": budget})
    with show.progress(quiet=quiet) as progress:
        compared = cells(asked, grid.split(","))
        found = run(compared, seeds=seeds, jobs=jobs, out=out, progress=progress)
    if json:
        show.out((out / "ablation.json").read_text(encoding="utf-8").rstrip())
    elif not quiet:
        show.err(to_markdown(asked, found))
        show.err(f"kept in {out}")
    return 0


@app.command()
def profile(
    context: typer.Context,
    path: Subject,
    target: Target = None,
    threads: Threads = None,
    batch: Batch = None,
    sequence: Tokens = None,
    runs: Runs = None,
    samples: Annotated[
        Path | None, typer.Option(help="Write every sample here: gzipped JSON Lines (.jsonl.gz).")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Measure a model's latency, size and memory on a target.

    A run or its bundle is measured as its recipe says, unless an option says otherwise.

    \b
    edgeprune profile runs/mrpc
    edgeprune profile model.onnx --target ort --sequence 64 --runs quick
    """
    from edgeprune.measure.samples import Sampled, write_samples

    keys = ("target", "threads", "batch", "sequence", "runs")
    with show.progress(quiet=quiet) as progress:
        asked = {key: context.params[key] for key in keys}
        result = edgeprune.profile(path, **asked, progress=progress)
    if json:
        show.out(show.profile_json(result))
    elif not quiet:
        show.err(show.profile(result))
    if samples is not None:
        write_samples(samples, [Sampled(result)])
    return 0


@app.command()
def convert(
    path: Subject,
    out: Annotated[Path, typer.Option(help="A new folder.", show_default=False)],
    target: Annotated[
        str,
        typer.Option(help="A runtime, or runtime@device where it is tried.", show_default=False),
    ],
    batch: Batch = None,
    sequence: Annotated[
        list[int] | None,
        _option("Tokens a row has; several make a folder for each.", MEASURING, 128),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Write a model as a runtime runs it, once it has answered there as ONNX Runtime does.

    \b
    edgeprune convert runs/mrpc --target mnn --out mrpc-mnn
    edgeprune convert runs/mrpc --target litert --sequence 32 --sequence 128 --out mrpc-litert
    """
    from edgeprune.gate.convert import convert_buckets

    lengths = sequence or []
    if len(lengths) > 1:
        made = convert_buckets(path, out, target=target, batch=batch, sequences=lengths)
    else:
        only = next(iter(lengths), None)
        made = [edgeprune.convert(path, out, target=target, batch=batch, sequence=only)]
    if json:
        facts = [one.facts for one in made]
        show.out(show.paths_json(facts if len(lengths) > 1 else facts[0]))
    elif not quiet:
        show.err("\n".join(map(show.converted, made)))
    return 0


@app.command()
def check(
    context: typer.Context,
    path: Subject,
    budget: Annotated[
        str | None,
        _option(
            '"12ms", "12 ms@p95", or "50%" of the run\'s unpruned model.', DEMANDS, "the run's"
        ),
    ] = None,
    percentile: Annotated[
        float | None, _option("Percent of inferences that must be within the budget.", DEMANDS, 90)
    ] = None,
    confidence: Annotated[
        float | None, _option("Percent; a wrong answer is so unlikely, each way.", DEMANDS, 99)
    ] = None,
    target: Annotated[
        list[str] | None,
        _option("A runtime, or runtime@device; several must all meet it.", DEMANDS, "the run's"),
    ] = None,
    score_floor: Annotated[
        float | None, _option("Least score of the exported file on its test rows.", DEMANDS)
    ] = None,
    size: Annotated[str | None, _option('Largest model file, as "30MB".', DEMANDS)] = None,
    parameters: Annotated[int | None, _option("Most parameters.", DEMANDS)] = None,
    multiply_adds: Annotated[
        int | None, _option("Most multiply-adds of an inference.", DEMANDS)
    ] = None,
    baseline: Annotated[
        Path | None,
        _option("The JSON of an earlier check: nothing countable may have grown.", DEMANDS),
    ] = None,
    config: Annotated[
        Path | None,
        _option("File with these demands as its [check] table.", DEMANDS, "./edgeprune.toml"),
    ] = None,
    inconclusive: Annotated[
        str | None,
        _option("What that does to the exit code.", DEMANDS, "fail", choices="fail, warn, pass"),
    ] = None,
    looks: Annotated[
        int | None, _option("How often data are doubled to decide, 1 to 3.", MEASURING, 3)
    ] = None,
    attempt: Annotated[
        int, _flag("--attempt", "How often this CI job was started: a retry is a further look.")
    ] = 1,
    threads: Threads = None,
    batch: Batch = None,
    sequence: Tokens = None,
    runs: Runs = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="Write every sample here (.jsonl.gz).", rich_help_panel=OUTPUTS),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML here.", rich_help_panel=OUTPUTS)
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Append Markdown here.", rich_help_panel=OUTPUTS)
    ] = None,
    openmetrics: Annotated[
        Path | None, typer.Option(help="Write OpenMetrics here.", rich_help_panel=OUTPUTS)
    ] = None,
    annotations: Annotated[
        str | None,
        typer.Option(help="Print workflow commands on stdout: github.", rich_help_panel=OUTPUTS),
    ] = None,
    self_test: Annotated[
        bool, _flag("--self-test", "Prove that the gate can say missed and met, with this model.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Measure a model and judge it against a budget: the exit code is the verdict.

    0 met, 1 missed, 3 inconclusive. What cannot flake is checked first: hashes, size, counts. A
    run or its bundle is measured as its recipe says.

    \b
    edgeprune check runs/mrpc
    edgeprune check runs/mrpc/bundle --budget "12 ms@p95" --json > verdict.json
    edgeprune check bundle --size 30MB --score-floor 0.85 --junit check.xml
    """
    from edgeprune.gate import outputs
    from edgeprune.gate.check import prove
    from edgeprune.gate.demands import Demands
    from edgeprune.measure.samples import write_samples

    if annotations not in (None, "github"):
        raise InputError(f"--annotations {annotations}", why="unknown", remedy="write github")
    if self_test:
        with show.progress(quiet=quiet) as progress:
            proof = prove(path, target=target[0] if target else None, progress=progress)
        show.err(proof.text)
        return proof.exit_code
    options = {key: context.params[key] for key in Demands.model_fields}
    with show.progress(quiet=quiet) as progress:
        found = edgeprune.check(path, config=config, attempt=attempt, progress=progress, **options)
    for line in outputs.to_annotations(found) if annotations else []:
        (show.err if json else show.out)(line)
    if json:
        show.out(show.as_json(found.to_dict()))
    elif not quiet:
        show.checked(found)
    # The answer is out, and stands whatever becomes of the files.
    writers: list[tuple[Path | None, Callable[[Path], None]]] = [
        (samples, lambda file: write_samples(file, found.targets)),
        (junit, lambda file: outputs.write(file, outputs.to_junit(found))),
        (summary, lambda file: outputs.write(file, outputs.to_summary(found), append=True)),
        (openmetrics, lambda file: outputs.write(file, outputs.to_openmetrics(found))),
    ]
    for file, write in writers:
        if file is not None:
            _try(write, file)
    return found.exit_code


def _try(write: Callable[[Path], None], file: Path) -> None:
    """What a file costs is never the answer that was paid for."""
    try:
        write(file)
    except EdgepruneError as error:
        show.err(show.error(error), typer.colors.RED)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="What it was: a run, bundle or file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What it is now.")],
    target: Target = None,
    blocks: Annotated[
        int | None, _option("How often each is launched, in turn; at least 20.", MEASURING, 20)
    ] = None,
    delta: Annotated[
        float | None, _option("By what share B may be slower than A.", DEMANDS, 0.03)
    ] = None,
    threads: Threads = None,
    batch: Batch = None,
    sequence: Tokens = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Measure two models in turn on one device, and judge whether B is slower than A.

    0 fine, 1 slower, 3 inconclusive.

    \b
    edgeprune compare old/bundle new/bundle
    edgeprune compare runs/a runs/b --delta 0.05 --blocks 40
    """
    given = {"blocks": blocks, "delta": delta, "target": target, "threads": threads}
    given |= {"batch": batch, "sequence": sequence}
    asked: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    with show.progress(quiet=quiet) as progress:
        found = edgeprune.compare(a, b, **asked, progress=progress)
    if json:
        show.out(show.as_json(found.to_dict()))
    elif not quiet:
        show.err(found.line(), show.COLOURS.get(found.finding))
    return found.exit_code


@app.command()
def verdict(
    samples: Annotated[Path, typer.Argument(metavar="SAMPLES", help="A .jsonl.gz of samples.")],
    budget: Annotated[
        str | None, _option('Another budget than was asked: "12 ms@p95".', DEMANDS)
    ] = None,
    confidence: Annotated[float | None, _option("Another confidence, in percent.", DEMANDS)] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Recompute a verdict from its samples, to the letter; the exit code is the verdict.

    Exits 6 where the file holds another verdict than its samples give.

    \b
    edgeprune verdict samples.jsonl.gz
    edgeprune verdict samples.jsonl.gz --budget 10ms
    """
    from edgeprune.gate.replay import replay
    from edgeprune.measure.verdict import EXIT_CODES, together

    verdicts = replay(samples, budget, confidence)
    if json:
        show.out(show.as_json([one.to_dict() for one in verdicts]))
    else:
        for one in verdicts:
            show.err(one.line(), show.COLOURS.get(one.outcome))
    return EXIT_CODES[together(one.outcome for one in verdicts)]


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN... [FILE.html]", help="Run folders; where the page goes."),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="In full, as Markdown.")] = False,
    html: Annotated[
        bool,
        typer.Option(
            "--html",
            help="Write one HTML page that needs no network: of a run, into RUN/report.html, or "
            "of several runs compared, into FILE.html.",
        ),
    ] = False,
    figures: Annotated[
        Path | None,
        typer.Option(help="Write the page's figures into this folder, each as CSV and as JSON."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Show what came out of runs; exits 0 whatever their verdicts.

    \b
    edgeprune report runs/mrpc
    edgeprune report runs/mrpc --html
    edgeprune report runs/mrpc runs/rte --html both.html
    edgeprune report runs/mrpc --figures figures
    """
    from edgeprune.report.folder import read_reports
    from edgeprune.report.markdown import to_markdown
    from edgeprune.report.page import write_page, write_run_figures

    files = [path for path in runs if html and path.suffix == ".html" and not path.is_dir()]
    runs = [path for path in runs if path not in files]
    if not runs or len(files) > 1:
        remedy = "for example `edgeprune report runs/a --html a.html`"
        raise InputError("--html", why="takes runs and one file at most", remedy=remedy)
    all_reports = [read_reports(run) for run in runs]
    if html:
        show.err(f"wrote {write_page(runs, *files)}")
    if figures is not None:
        show.err(f"wrote {len(write_run_figures(runs, figures))} files into {figures}")
    if json:
        show.out(_json([one for reports in all_reports for one in reports]))
    elif markdown:
        show.out("\n".join(to_markdown(reports) for reports in all_reports))
    elif not html and figures is None:
        show.out("\n".join(show.summary(reports) for reports in all_reports))
    return 0


@app.command()
def pareto(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    rule: Annotated[
        str,
        typer.Option(
            help="min or max of ms (p90), p50, score (kept of the unpruned model's), size (MB) or "
            "parameters; then `with` what must hold, joined by `and`."
        ),
    ] = "min ms with score >= 0.98",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Choose a bundle among all budgets of runs; its path is on stdout. Exits 1 if none fulfils.

    \b
    edgeprune pareto runs/mrpc --rule "min ms with score >= 0.98"
    cp -r $(edgeprune pareto runs/a runs/b --rule "max score with ms < 12 and size < 30") model
    """
    from edgeprune.report.pareto import Rule, choose

    choice = choose(runs, Rule.parse(rule))
    if not (json or quiet):
        show.err(show.choice(choice))
    if json:
        show.out(show.paths_json(choice.to_dict()))
    elif choice.chosen is not None:
        show.out(str(choice.chosen.bundle))
    else:
        show.err(f"none of {len(choice.candidates)} bundles fulfils: {rule}", typer.colors.RED)
    return 0 if choice.chosen is not None else 1


@runs_app.command("list")
def runs_list(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="It, and all below it.")] = Path(),
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Every run folder: its state, its verdicts, its size on disk and how old its last word is."""
    from edgeprune.runs import list_runs

    found = list_runs(folder)
    show.out(show.paths_json([asdict(one) for one in found]) if json else show.run_folders(found))
    return 0


@runs_app.command("clean")
def runs_clean(
    run: RunFolder,
    keep_bundles: Annotated[
        bool, _flag("--keep-bundles", "Leave the reports and bundles of budgets no longer asked.")
    ] = False,
    dry_run: Annotated[bool, _flag("--dry-run", "Say what would go; remove nothing.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Remove from a finished run what its last recipe does not use, and say what that frees.

    That is stages that no report of this recipe rests on, and budgets it does not ask for.
    """
    from edgeprune.runs import clean

    found = clean(run, keep_bundles=keep_bundles, dry_run=dry_run)
    if json:
        show.out(show.paths_json([asdict(one) for one in found]))
    else:
        show.out(show.rubbish(found, removed=not dry_run))
    return 0


@app.command()
def verify(
    bundle: Bundle,
    key: Annotated[
        Path | None,
        typer.Option(help="Public key (PEM) of whoever must have signed it."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Compare a bundle's files with its manifest, and its answers with the golden ones.

    0 whole and answers as it did, 1 answers differ, 6 a file was changed, added or exchanged.

    \b
    edgeprune verify runs/mrpc/bundle
    edgeprune verify runs/mrpc/bundle --key release.pub --json
    """
    result = edgeprune.verify(bundle, key=key)
    if json:
        show.out(show.as_json(result.to_dict()))
    else:
        show.err(show.verified(result), typer.colors.GREEN if result.agrees else typer.colors.RED)
    return result.exit_code


@app.command()
def sign(
    bundle: Bundle,
    key: Annotated[Path, typer.Option(help="Private key (PEM), of an elliptic curve.")],
    debug: Debug = False,
) -> int:
    """Sign a bundle by a local key pair, as an OpenSSF model signature; needs edgeprune[sign].

    \b
    openssl ecparam -name prime256v1 -genkey -noout -out release.key
    openssl ec -in release.key -pubout -out release.pub
    edgeprune sign runs/mrpc/bundle --key release.key
    """
    from edgeprune.ship.signature import sign

    show.err(f"wrote {sign(bundle, key)}")
    return 0


@app.command()
def ship(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE PLACE...",
            help="Then the places: a folder, or DEVICE:ADDRESS:FOLDER. No bundle with --rollback.",
        ),
    ],
    rollback: Annotated[
        bool, _flag("--rollback", "Make the previous release the current one again.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Put a bundle to work here or on devices: copied, proved there, then switched over at once.

    PLACE/current is a link to the bundle, PLACE/previous to the one before. A place that fails
    keeps what it had; the exit code is the highest of all places'.

    \b
    edgeprune ship runs/mrpc/bundle /srv/models/intent
    edgeprune ship runs/mrpc/bundle ssh:pi4:~/models/intent adb:/data/local/tmp/intent
    edgeprune ship --rollback ssh:pi4:~/models/intent
    """
    from edgeprune import delivery

    places = paths if rollback else paths[1:]
    if not places:
        raise InputError("ship", why="no place to ship to", remedy="give a folder after the bundle")
    done = delivery.rollback(places) if rollback else delivery.ship(paths[0], places)
    if json:
        show.out(show.as_json([one.to_dict() for one in done]))
    elif len(done) == 1 and done[0].error is not None:
        raise done[0].error
    else:
        show.err(show.outcomes(done))
    return delivery.exit_code(done)


@app.command()
def explain(
    code: Annotated[str, typer.Argument(help="An error's code, EP150 for example.")],
    debug: Debug = False,
) -> int:
    """Tell what an error code means: the usual causes, and what to do about each."""
    from edgeprune.explain import explain

    show.out("\n".join(explain(code).lines()))
    return 0


@targets_app.command("list")
def targets_list(json: Json = False, debug: Debug = False) -> int:
    """Every installed runtime and device, whether it is usable here, and what repairs it."""
    from edgeprune.measure.target import targets

    listed = targets()
    show.out(show.as_json([asdict(one) for one in listed]) if json else show.targets(listed))
    return 0


@targets_app.command("doctor")
def targets_doctor(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET", help="Default: every runtime on this machine."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Try every part of targets: what is usable, what is missing, and the line that repairs it.

    Devices are reached for it. Exits 4 unless all targets that were named are usable.

    \b
    edgeprune targets doctor
    edgeprune targets doctor ort@ssh:pi4 ort@adb
    """
    from edgeprune.measure.doctor import diagnose
    from edgeprune.measure.target import runtimes

    found = [diagnose(target) for target in targets or runtimes()]
    show.out(show.as_json([asdict(one) for one in found]) if json else show.doctor(found))
    return 4 if targets and not all(one.usable for one in found) else 0


@targets_app.command("install")
def targets_install(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="Runtimes, or devices with a client.")
    ],
    debug: Debug = False,
) -> int:
    """Give runtimes and devices the packages that they need, in an environment of their own.

    It lies in your cache folder (XDG_CACHE_HOME), and is made whole or not at all.

    \b
    edgeprune targets install openvino mnn
    """
    from edgeprune.measure.target import environment_of

    with show.progress(quiet=False) as progress:
        for name in names:
            environment = environment_of(name)
            if environment is None:
                show.out(f"{name}  needs nothing of its own")
                continue
            environment.install(progress)
            show.out(f"{name}  {environment.check().version}")
    return 0


def _json(reports: Sequence[Report]) -> str:
    """One report as an object, several as an array."""
    texts = [report.to_json().strip() for report in reports]
    return texts[0] if len(texts) == 1 else "[\n" + ",\n".join(texts) + "\n]"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. An error is one line on stderr."""
    words = sys.argv[1:] if words is None else list(words)
    if sys.stderr is None:  # closed; else the next file that is opened would be taken for it
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    # Raised as an exception, so that measuring processes and temporary folders are cleaned up.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with none_lost():
            return app(words, prog_name="edgeprune", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        told = _told(error)
        show.err(show.error(told), typer.colors.RED)
        return told.exit_code


def _terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _told(error: Exception) -> EdgepruneError:
    """Any error as one of ours."""
    if isinstance(error, EdgepruneError):
        return error
    if isinstance(error, UsageError):
        return InputError(error.format_message(), remedy="`edgeprune COMMAND --help` lists options")
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("edgeprune"):
        remedy = "pip install 'edgeprune[train]'"
        return TargetError("this command", why=f"needs {error.name}, not installed", remedy=remedy)
    if isinstance(error, MemoryError):
        return ResourceError("memory", why="not enough", remedy="choose a smaller batch or model")
    if isinstance(error, OSError) and error.errno in UNUSABLE_NAME:
        return InputError(
            str(error.filename)[:80], why=str(error.strerror), remedy="check the name"
        )
    if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
        remedy = "make room or give permission, or choose another folder"
        return ResourceError(str(error.filename or "disk"), why=str(error.strerror), remedy=remedy)
    what = f"{type(error).__name__}: {error}"
    remedy = "run it again with --debug and report what it prints"
    return EdgepruneError(what, why="this is a bug in edgeprune", remedy=remedy)
