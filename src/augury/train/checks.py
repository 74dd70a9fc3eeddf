"""What a recipe asks of its model, tried before anything is sampled: what does not fit is told in seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from augury.contract import Contract
from augury.data.preflight import preflight
from augury.errors import InputError
from augury.lm import LanguageModel
from augury.lm.adapters import adapter_parameters, add_adapter, remove_adapter
from augury.lm.size import size_here
from augury.lm.tokenizer import tokenizer_here
from augury.oracle.prompt import build_labelled, one_token
from augury.train.loop import lora_config
from augury.train.recipe import Recipe
from augury.train.start import check_start

TRIED = "tried"  # the adapter's name while it is
QUESTION = "What is this about?"


def check_unloaded(recipe: Recipe, data: Path | None) -> None:
    """Refuse what can be known to fail before the model is loaded, as far as its files are on this machine.

    Raises:
        NotFoundError: A file is missing.
        FormatError: A file is empty, or lacks a column that is read.
        InputError: The model has no such layer or block, or `data` holds tokens of another tokenizer.
        ContractError: The slot token is not one token.
    """
    preflight(recipe, data)
    if recipe.init_from is not None:
        check_start(recipe.init_from, recipe.lora)
    size, tokenizer = size_here(recipe.model), tokenizer_here(recipe.model)
    if size is not None:
        check_block(recipe, size.n_layers)
    if tokenizer is not None:
        one_token(tokenizer, recipe.prompt.slot_token)


def check_block(recipe: Recipe, n_layers: int) -> None:
    """Refuse an injection at a block that a model of this depth does not have.

    Raises:
        InputError: It does not.
    """
    block = recipe.injection.block or 0
    if block >= n_layers:
        raise InputError(
            f"The recipe injects at block {block}, which {recipe.model} does not have.",
            f"its blocks run from 0 to {n_layers - 1}",
            "set injection.block to an early one; 1 is usual",
        )


def check_recipe(lm: LanguageModel, recipe: Recipe, contract: Contract) -> None:
    """Render the longest prompts and put the adapter on and off again, so that hours of rollouts do not come first.

    Raises:
        ContractError: The slot token is not one token, the chat template does not hold the prompt, or the adapter does
            not fit the model.
        InputError: `lora` names modules that the model does not have.
        FormatError: `lora` is not valid.
    """
    for layers in contract.layers or ():
        build_labelled(lm, contract, layers, recipe.longest_window, QUESTION, "Yes")
    _check_names(lm, recipe)
    add_adapter(lm, lora_config(recipe), TRIED)
    try:
        if not adapter_parameters(lm.model, TRIED):
            raise _unfit(lm, "it would train nothing")
    finally:
        remove_adapter(lm, TRIED)


def _check_names(lm: LanguageModel, recipe: Recipe) -> None:
    """Of several names peft is content when one is found; of an expression it does not say what there is."""
    wanted = recipe.lora.target_modules
    paths = [path for path, _ in lm.model.named_modules()]
    if isinstance(wanted, str):
        missing = [] if wanted == "all-linear" or _matches(wanted, paths) else [wanted]
    else:
        missing = [name for name in wanted if not any(f".{path}".endswith(f".{name}") for path in paths)]
    if missing:
        raise _unfit(lm, f"the model has no module {', '.join(missing)}")


def _matches(expression: str, paths: Sequence[str]) -> bool:
    try:
        return any(re.fullmatch(expression, path) for path in paths)
    except re.error:
        return False


def _unfit(lm: LanguageModel, why: str) -> InputError:
    names = {path.split(".")[-2] for path, value in lm.blocks[0].named_parameters() if value.ndim == 2 and "." in path}
    return InputError(
        f"The recipe's adapter cannot be put on {lm.name}.",
        why,
        f"set lora.target_modules to all-linear, or to some of {', '.join(sorted(names))}",
    )
