"""What a data set asks of endpoints, told before anything is asked."""

from __future__ import annotations

from dataclasses import dataclass

from augury.data import bank
from augury.data.contexts import RolloutSettings
from augury.data.recipe import DataRecipe
from augury.data.requests import EndpointSettings
from augury.data.sources.conversation import ConversationSettings

CALLS = 3  # for an annotated answer; one more where a reply cannot be used
CHARACTERS = 4  # of a token, about
PROBLEM = 40  # tokens of a user's message, about


@dataclass(frozen=True)
class Calls:
    """What a set of contexts or a source asks of an endpoint, about; what is kept from before is not taken off.

    Attributes:
        name: The set or source.
        model: The model that is asked.
        calls: Requests.
        prompt_tokens: Tokens that the model reads.
        completion_tokens: Tokens that it writes, at most.
        cost: At most; None where no prices are given.
    """

    name: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def line(self) -> str:
        """In words."""
        cost = "cost not known (no prices)" if self.cost is None else f"at most {self.cost:,.2f} in all"
        tokens = f"{self.prompt_tokens:,} tokens read, at most {self.completion_tokens:,} written"
        return f"calls     {self.name}: about {self.calls:,} of {self.model}; {tokens}; {cost}"


def endpoint_calls(recipe: DataRecipe) -> list[Calls]:
    """What each part of a recipe that uses an endpoint asks of it."""
    found: list[Calls] = []
    for name, settings in recipe.contexts.items():
        if isinstance(settings, RolloutSettings) and settings.endpoint is not None:
            prompts = settings.train + settings.heldout
            found.append(_of(name, settings.endpoint, prompts, PROBLEM * prompts, settings.max_new_tokens * prompts))
    for name, source in recipe.sources.items():
        if isinstance(source, ConversationSettings) and source.endpoint is not None:
            answers = recipe.contexts[source.contexts]
            assert isinstance(answers, RolloutSettings)  # the recipe refuses others
            found.append(annotation_estimate(name, source, source.endpoint, answers))
    return found


def annotation_estimate(
    name: str, source: ConversationSettings, endpoint: EndpointSettings, answers: RolloutSettings
) -> Calls:
    """Three calls an answer: the whole answer is read in the first, and its halves in the two others."""
    counts = [answers.train, *([answers.heldout] if source.heldout else [])]
    units = sum(min(count, source.most or count) for count in counts)
    asked = sum(len(bank.read("annotation")[kind]) for kind in ("choose", "before", "after")) // CHARACTERS
    tokens = asked + 2 * PROBLEM + 2 * answers.max_new_tokens
    return _of(name, endpoint, CALLS * units, tokens * units, CALLS * endpoint.max_tokens * units)


def _of(name: str, endpoint: EndpointSettings, calls: int, prompt: int, completion: int) -> Calls:
    cost = endpoint.prices.cost(prompt, completion) if endpoint.prices else None
    return Calls(name, endpoint.model, calls, prompt, completion, cost)
