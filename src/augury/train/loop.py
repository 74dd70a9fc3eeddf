"""The training loop, from top to bottom: the next batch, a step, a line of metrics, now and then a checkpoint."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch

from augury.contract import Contract
from augury.data.example import Example
from augury.errors import ModelError, out_of_memory
from augury.files import write_text
from augury.lm import LanguageModel, adapters
from augury.lm.adapters import adapters_on, remove_adapter
from augury.lm.learning import add_learner, learning
from augury.oracle.reader import write_reader
from augury.oracle.save import write_oracle
from augury.train.batching import TrainingData, pools
from augury.train.checkpoint import State, latest, load_checkpoint, save_checkpoint
from augury.train.metrics import Metrics, StepReport, read_metrics
from augury.train.provenance import counted
from augury.train.ranks import ALONE, Ranks
from augury.train.recipe import OptimizerSettings, Recipe
from augury.train.step import Learner, NotFiniteError, Stepped, train_step

log = logging.getLogger(__name__)
ADAPTER = "oracle"
CHECKPOINTS = "checkpoints"
BAD_BATCH = "bad-batch.jsonl"


def train_adapter(
    lm: LanguageModel,
    contract: Contract,
    recipe: Recipe,
    data: TrainingData,
    run: Path,
    *,
    ranks: Ranks = ALONE,
    start: Callable[[], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_resume: Callable[[StepReport], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train the oracle's adapter on `lm`, from the newest checkpoint in `run` on if there is one.

    Args:
        lm: The base; the adapter is added to it under the name `oracle` and stays, frozen.
        contract: How slots, prompts and injection are made; every checkpoint carries it, with the steps so far.
        recipe: Everything else.
        data: Examples, their order, and activations captured with all oracles off.
        run: Where `metrics.jsonl` and `checkpoints/` go; only the first process writes.
        ranks: This process among those that share each batch.
        start: Puts the weights into the new adapter that a fresh run begins with; None: PEFT's own.
        on_step: Called after every step.
        on_resume: Called with the last step that was done before, where a run goes on.
        stop: Asked after every step; True in any process ends the run after a checkpoint.

    Returns:
        The number of steps done.

    Raises:
        ModelError: A loss or a gradient is not finite (the batch is kept in `bad-batch.jsonl`), or the memory does not
            suffice; neither the adapter nor a checkpoint has taken it in.
    """
    settings = recipe.optimizer
    parameters = add_learner(lm, lora_config(recipe), ADAPTER, settings.seed)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    learner = Learner(lm, contract, settings, data.reads, parameters, optimizer, ranks)
    first = _resume(learner, run, start)
    done, save = first, _saver(learner, recipe, run)
    lessons = learning(lm, ADAPTER, settings.gradient_checkpointing)
    with adapters_on(lm.model, [ADAPTER]), lessons, Metrics(run, first, ranks) as metrics:
        if on_resume is not None and first:  # it may have been killed before the caller had done with this step
            on_resume(read_metrics(run)[first - 1])
        for step, examples in pools(recipe, data, first, settings.steps):
            began = perf_counter()
            rate = learning_rate(settings, step, settings.steps)
            with _explaining(run, step + 1, examples, ranks):
                found = train_step(learner, examples, step, rate)
            done = step + 1
            report = _report(settings, done, examples, found, perf_counter() - began, rate)
            metrics.write(report)
            saved = done % settings.checkpoint_every == 0 or done == settings.steps
            if saved:
                save(done)
            if on_step is not None:  # after the checkpoint: a fault in a caller's code costs no step
                on_step(report)
            if ranks.any(stop()):
                if not saved:
                    save(done)
                break
    return done


def _resume(learner: Learner, run: Path, start: Callable[[], None] | None) -> int:
    """The steps that the newest checkpoint holds; the model is left as it was where that cannot be used."""
    found = latest(run / CHECKPOINTS)
    try:
        if found:
            state = load_checkpoint(found, learner.parameters, learner.optimizer)
            _check_same(state, _state(learner, state.step))
            return state.step
        if start is not None:
            start()
        return 0
    except BaseException:
        remove_adapter(learner.lm, ADAPTER)
        raise


def _state(learner: Learner, step: int) -> State:
    """Everything else that the steps to come follow from."""
    pool, place = divmod(step, learner.settings.pool)
    return State(step, learner.settings.seed, pool, place, torch.get_num_threads(), learner.ranks.count)


def _check_same(kept: State, here: State) -> None:
    for name in ("threads", "processes"):
        if getattr(kept, name) != getattr(here, name):
            log.warning(
                "the checkpoint was made with %d %s and this goes on with %d: sums are rounded otherwise, so the run "
                "does not end bitwise as it would have",
                getattr(kept, name), name, getattr(here, name),
            )  # fmt: skip


def _saver(learner: Learner, recipe: Recipe, run: Path) -> Callable[[int], None]:
    """What writes the checkpoint after a step: an oracle that says how far it was trained."""
    config = lora_config(recipe)

    write_it = write_reader if recipe.reads == "text" else write_oracle

    def write(folder: Path) -> None:
        contract = counted(learner.contract, read_metrics(run))
        write_it(learner.lm, ADAPTER, config, contract, folder, torch.float32)

    def save(step: int) -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in learner.parameters.values()):
            raise _diverged(run, step, "the adapter's weights are not finite after it")
        if learner.ranks.first:
            save_checkpoint(run / CHECKPOINTS, _state(learner, step), write, learner.parameters, learner.optimizer)
        learner.ranks.wait()

    return save


@contextmanager
def _explaining(run: Path, step: int, examples: Sequence[Example], ranks: Ranks) -> Iterator[None]:
    """What ends a step is told with what to do, and the batch that did it is kept."""
    try:
        yield
    except NotFiniteError as error:
        if ranks.first:
            write_text(run / BAD_BATCH, "".join(json.dumps(asdict(example)) + "\n" for example in examples))
        raise _diverged(run, step, f"{error}; its examples are in {BAD_BATCH}") from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise _too_large(step, examples) from error


def _diverged(run: Path, step: int, why: str) -> ModelError:
    found = latest(run / CHECKPOINTS)
    kept = f"{found} is whole" if found else "no checkpoint was written yet"
    return ModelError(
        f"Training came apart at step {step} and was stopped.",
        f"{why}; {kept}",
        "train in a new folder with a lower optimizer.learning_rate or a longer warmup; what stands in data/ and "
        "reads/ is not made again where they are copied into it",
    )


def _too_large(step: int, examples: Sequence[Example]) -> ModelError:
    longest = max(examples, key=lambda e: len(e.positions) * len(e.layers) + (len(e.question) + len(e.answer)) // 4)
    return ModelError(
        f"There was not enough memory for step {step}.",
        f"its longest example is of {longest.source}, with {len(longest.positions) * len(longest.layers)} activations "
        f"(context {longest.context} of {longest.contexts})",
        "go on with --resume and a lower --set optimizer.pass_tokens=N, or --set optimizer.gradient_checkpointing=true",
    )


def _report(
    settings: OptimizerSettings,
    step: int,
    examples: Sequence[Example],
    found: Stepped,
    seconds: float,
    rate: float,
) -> StepReport:
    losses: dict[str, list[float]] = defaultdict(list)
    for example, loss in zip(examples, found.losses, strict=True):
        losses[example.source].append(loss)
    means = {source: sum(values) / len(values) for source, values in sorted(losses.items())}
    mean = sum(found.losses) / len(found.losses)
    return StepReport(step, settings.steps, len(examples), found.tokens, seconds, rate, mean, means)


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Warm-up, constant, then linear decay to zero."""
    warm = max(1, round(settings.warmup * steps))
    decaying = max(1, round(settings.decay * steps))
    return settings.learning_rate * min(1.0, (step + 1) / warm, (steps - step) / decaying)


def lora_config(recipe: Recipe) -> dict[str, object]:
    """The adapter's PEFT configuration."""
    lora = recipe.lora
    return adapters.lora_config(lora.rank, lora.alpha, lora.dropout, lora.rslora, lora.target_modules)
