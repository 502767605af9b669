"""What the stages of a run work on: inputs, encoder, and every split as tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from edgeprune import __version__
from edgeprune.effort import Effort
from edgeprune.encoder import Encoder, load_pretrained
from edgeprune.errors import ModelError, RecipeError
from edgeprune.hashing import file_digest
from edgeprune.inputs import Inputs, Transfer
from edgeprune.learn.answers import Judge, Sample, accelerator, judge_on
from edgeprune.learn.fit import Schedule
from edgeprune.learn.masking import Blanks, embedding_width
from edgeprune.measure.profile import Settings
from edgeprune.measure.target import Target
from edgeprune.prune.votes import prior_sensitivity
from edgeprune.recipe import Recipe
from edgeprune.shape import SubLayer
from edgeprune.task import Rows, Task
from edgeprune.tokens import Tokens, tokenize
from edgeprune.vocabulary import KINDS, Vocabulary

JUDGED_AT_MOST = 1_000  # validation rows at a checkpoint
WIDE = 513  # from this hidden size on, an encoder is moved by smaller steps
RATE, WIDE_RATE = 1e-4, 5e-5
RECOVERY_RATE = 2.0  # times that: a pruned model has further to go
HALF_LEFT, MOST_RECOVERY = 0.5, 5.0  # of the weights; times the steps of a larger model
# An effort is a time: where rows are longer, a step takes longer, and there are fewer of them.
LEARNT_BY = ("torch", "transformers", "tokenizers", "accelerate", "numpy")
TOKENS_A_STEP, LEAST_SHARE = 400, 0.5
PASSING = ("_name_or_path", "transformers_version")  # in a config, and nothing of the model
WEIGHT_BYTES = {"fp32": 4, "int8": 1}  # of a number in an embedding
ENDLESS = 1_000_000  # tokens at which a line of text is cut that is only counted
NEW_HEAD_RATE = 10.0  # times that for a head that starts from random weights


@dataclass(frozen=True)
class Materials:
    """What a run works on: its inputs with the encoder, and every split as tokens."""

    inputs: Inputs
    encoder: Encoder
    tokenizer: Any
    tokens: Mapping[str, Tokens]  # of "train", "validation", "test", "auxiliary"
    encoder_digest: str
    prior: Mapping[SubLayer, float] | None
    """How much each sub-layer counts by the plans of earlier runs."""
    vocabulary: Vocabulary | None
    """In what order tokens are kept under the size budget, where there is one."""
    earlier: tuple[Task, ...] = ()
    """Auxiliary tasks that teach the encoder in turn, before the one that goes with the target."""

    @property
    def recipe(self) -> Recipe:
        return self.inputs.recipe

    @property
    def effort(self) -> Effort:
        return self.inputs.effort

    @property
    def transfer(self) -> Transfer:
        return self.inputs.transfer

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.inputs.targets

    @property
    def task(self) -> Task:
        return self.inputs.task

    @property
    def auxiliary(self) -> Task | None:
        return self.inputs.auxiliary

    @property
    def train(self) -> Sample:
        return Sample.of("target", self.task, self.task.train, self.tokens["train"])

    @property
    def validation(self) -> tuple[Rows, Sample]:
        rows, tokens = self.task.validation, self.tokens["validation"]
        if len(rows) > JUDGED_AT_MOST:
            some = np.random.default_rng(self.recipe.seed).permutation(len(rows))[:JUDGED_AT_MOST]
            rows, tokens = rows.take(some), tokens.take(some)
        return rows, Sample.of("target", self.task, rows, tokens)

    @property
    def judge(self) -> Judge:
        return judge_on(self.task, *self.validation)

    @property
    def auxiliary_train(self) -> Sample | None:
        if self.auxiliary is None:
            return None
        tokens = self.tokens["auxiliary"]
        sample = Sample.of("auxiliary", self.auxiliary, self.auxiliary.train, tokens)
        return replace(sample, blanks=self._blanks)

    @property
    def outputs(self) -> dict[str, int]:
        """The width of each task's head."""
        found = {"target": self.task.outputs}
        if self.auxiliary is not None:
            fills = self._blanks is not None
            width = embedding_width(self.encoder) if fills else self.auxiliary.outputs
            found["auxiliary"] = width
        return found

    @property
    def _blanks(self) -> Blanks | None:
        is_text = self.auxiliary is not None and self.auxiliary.kind == "text"
        return Blanks.of(self.tokenizer) if is_text else None

    def with_auxiliary(self, task: Task, earlier: Sequence[Task]) -> Materials:
        """The same with one of the candidates alone, and those that come before it."""
        inputs, tokens = replace(self.inputs, candidates=(task,)), {**self.tokens}
        tokens["auxiliary"] = self.training_tokens(task)
        return replace(self, inputs=inputs, tokens=tokens, earlier=tuple(earlier))

    def training_tokens(self, task: Task) -> Tokens:
        rows, length = task.train, self.recipe.sequence
        return tokenize(self.tokenizer, rows.texts, rows.pairs, length)

    def schedule(self, steps: int, *, recovery: bool = False) -> Schedule:
        rate = RATE if self.encoder.shape.hidden < WIDE else WIDE_RATE
        if recovery:
            body = head = RECOVERY_RATE * rate
        else:
            body, head = rate, NEW_HEAD_RATE * rate
        share = TOKENS_A_STEP / (self.effort.batch * float(self.tokens["train"].lengths.mean()))
        steps = round(steps * min(1.0, max(LEAST_SHARE, share)))
        effort = self.effort
        return Schedule(
            steps, effort.batch, body, head, self.recipe.seed, checkpoints=effort.checkpoints
        )

    def recovery(self, share: float) -> Schedule:
        """Of a model with so much of the layers' weights: the smaller it is, the more steps."""
        more = min(MOST_RECOVERY, max(1.0, HALF_LEFT / share))
        return self.schedule(round(more * self.effort.recovery_steps), recovery=True)

    def settings(self, plan: Settings) -> Settings:
        """A run plan under the conditions of the recipe."""
        recipe = self.recipe
        return replace(plan, threads=recipe.threads, batch=recipe.batch, sequence=recipe.sequence)

    @property
    def probe_precision(self) -> str:
        """What is deployed while planning: int8 is planned in int8, `auto` in fp32."""
        return "int8" if self.recipe.precision == "int8" else "fp32"

    def token_bytes(self, precision: str) -> int:
        """What a token's embedding takes in a file."""
        return embedding_width(self.encoder) * WEIGHT_BYTES[precision]

    @property
    def room_bytes(self) -> int | None:
        """What a size budget leaves for all but the tokens that are needed."""
        size, vocabulary = self.recipe.size_budget, self.vocabulary
        if size is None or vocabulary is None:
            return None
        return size.bytes - self.token_bytes(self.probe_precision) * vocabulary.needed

    @property
    def head_bytes(self) -> int:
        """What the target's head takes there: a row, and a scale and a zero point if it is int8."""
        scale = 5 if self.probe_precision == "int8" else 0
        row = self.encoder.shape.hidden * WEIGHT_BYTES[self.probe_precision] + scale
        return self.task.outputs * (row + WEIGHT_BYTES["fp32"])

    @property
    def measured_how(self) -> dict[str, Any]:
        recipe = self.recipe
        how = [recipe.threads, recipe.batch, recipe.sequence]
        where = [_where(target) for target in self.targets]
        return {"where": where, "how": how, "versions": versions("onnxruntime")}


def _where(target: Target) -> dict[str, Any]:
    facts, program = target.device.facts(), target.runtime.program()
    return {
        "target": target.name,
        "runtime": target.runtime.check().version,
        "machine": {name: facts.get(name) for name in ("machine", "cpu", "cores")},
        "program": [file_digest(path) for path in (program.start, program.session)],
    }


def versions(*packages: str) -> dict[str, str]:
    return {"edgeprune": __version__} | {name: metadata.version(name) for name in packages}


def learnt_how() -> dict[str, Any]:
    """What a trained model depends on beside its recipe."""
    device = accelerator()
    kind = [device.device.type, device.mixed_precision]
    return {"versions": versions(*LEARNT_BY), "device": kind}


def prepare(inputs: Inputs) -> Materials:
    """Load the encoder and tokenize every split. Raises ModelError, RecipeError."""
    encoder, tokenizer = load_pretrained(inputs.model)
    digest = digest_of_encoder(encoder, tokenizer)
    length, most = inputs.recipe.sequence, positions(encoder)
    if length > most:
        raise RecipeError(
            f"--sequence {length}", why=f"the encoder has positions for {most} tokens"
        )
    prior = prior_sensitivity(inputs.votes, encoder.shape)
    if inputs.auxiliary and inputs.auxiliary.kind == "text" and Blanks.of(tokenizer) is None:
        raise RecipeError(
            f"--auxiliary {inputs.auxiliary.name}",
            why="is plain text, and the encoder's tokenizer has no mask to hide its tokens by",
            remedy="give labelled rows",
        )
    layers, frozen = len(encoder.shape.layers), inputs.recipe.frozen_layers
    if frozen != "auto" and frozen >= layers:
        raise RecipeError(
            f"--frozen-layers {frozen}",
            why=f"the encoder has {layers} layers, and one at least is taught",
            remedy=f"give at most {layers - 1}",
        )
    tokens = tokenized(inputs, tokenizer)
    return Materials(
        inputs=inputs,
        encoder=encoder,
        tokenizer=tokenizer,
        tokens=tokens,
        encoder_digest=digest,
        prior=prior,
        vocabulary=None if inputs.recipe.size is None else _vocabulary(inputs, tokenizer, tokens),
    )


def tokenized(inputs: Inputs, tokenizer: Any) -> dict[str, Tokens]:
    """Every split, cut at the recipe's length."""
    task, length = inputs.task, inputs.recipe.sequence
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    if inputs.auxiliary is not None:
        splits["auxiliary"] = inputs.auxiliary.train
    return {
        name: tokenize(tokenizer, rows.texts, rows.pairs, length) for name, rows in splits.items()
    }


def _vocabulary(inputs: Inputs, tokenizer: Any, tokens: Mapping[str, Tokens]) -> Vocabulary:
    """Raises ModelError for a tokenizer that cannot be cut."""
    kind = spec_of(tokenizer)["model"]["type"] if tokenizer.is_fast else "without tokenizer.json"
    if kind not in KINDS:
        raise ModelError(
            f"tokenizer of {inputs.recipe.model}",
            why=f"of the kind {kind}, whose vocabulary cannot be cut",
            remedy=f"leave out --size, or give an encoder with one of {', '.join(KINDS)}",
        )
    needed, likely = [tokens["train"]], tokens.get("auxiliary", tokens["train"].take([]))
    if inputs.vocabulary is not None:
        needed.append(tokenize(tokenizer, inputs.vocabulary.train.texts, None, ENDLESS))
    return Vocabulary.of(spec_of(tokenizer), int(tokenizer.pad_token_id), needed, likely)


def spec_of(tokenizer: Any) -> dict[str, Any]:
    """What a fast tokenizer's tokenizer.json holds."""
    spec: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return spec


def positions(encoder: Encoder) -> int:
    """The most tokens that the encoder can take."""
    embedded = int(getattr(encoder.config, "max_position_embeddings", 512))
    # RoBERTa and its kin count positions from the padding token's id.
    offset = encoder.config.model_type in ("roberta", "xlm-roberta", "mpnet")
    return embedded - 2 if offset else embedded


def digest_of_encoder(encoder: Encoder, tokenizer: Any) -> str:
    """sha256 of what a pretrained model is: config, tokenizer as it was loaded, and weights."""
    config = encoder.config.to_dict()
    for name in PASSING:
        config.pop(name, None)
    backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else ""
    told = [config, sorted(tokenizer.get_vocab().items()), backend]
    total = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for name, tensor in encoder.state_dict().items():
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()
