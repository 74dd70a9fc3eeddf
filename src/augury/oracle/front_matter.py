"""The fields at the head of a model card, which the hub reads: written, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from augury.errors import FormatError, InputError

LIBRARY = "peft"
TAG = "activation-oracle"
PLACE = "this folder or repository"  # stands in a card until the oracle has a repository

_HEAD = re.compile(r"\A---[ \t]*\r?\n(?P<fields>.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_REPAIR = "mend README.md, or save the oracle again with `oracle.save_pretrained(folder)`"


def written(fields: Mapping[str, Any]) -> str:
    """Front matter with these fields, in their order."""
    import yaml

    return f"---\n{yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True)}---\n"


def front_matter(card: str) -> dict[str, Any]:
    """The fields at the head of a card.

    Raises:
        FormatError: There are none, or they are no YAML mapping.
    """
    import yaml

    head = _HEAD.match(card)
    if head is None:
        raise FormatError("The model card has no front matter.", "README.md does not begin with `---`", _REPAIR)
    try:
        fields = yaml.safe_load(head["fields"])
    except yaml.YAMLError as error:
        raise FormatError("The model card's front matter is no YAML.", " ".join(str(error).split()), _REPAIR) from error
    if not isinstance(fields, dict):
        why = f"it holds {type(fields).__name__}, not fields"
        raise FormatError("The model card's front matter cannot be used.", why, _REPAIR)
    return {str(name): value for name, value in fields.items()}


def check_front_matter(fields: Mapping[str, Any], base: str) -> None:
    """Refuse a card under which the hub would not find the oracle or its base.

    Args:
        fields: The card's front matter.
        base: The base that the contract names.

    Raises:
        FormatError: Another base or library, no tag, or no licence.
    """
    bases, tags = _listed(fields.get("base_model")), _listed(fields.get("tags"))
    wrong = []
    if base.casefold() not in [name.casefold() for name in bases]:
        wrong.append(f"base_model is {fields.get('base_model')!r}, and the contract's is {base!r}")
    if fields.get("library_name") != LIBRARY:
        wrong.append(f"library_name is {fields.get('library_name')!r}, not {LIBRARY!r}")
    if TAG not in tags:
        wrong.append(f"tags do not name {TAG!r}")
    if wrong:
        raise FormatError("The model card does not describe this oracle.", "; ".join(wrong), _REPAIR)
    if not isinstance(fields.get("license"), str) or not _LICENSE.fullmatch(fields["license"]):
        stated = fields.get("license")
        why = "README.md states none" if stated is None else f"license: {stated!r} is none of the hub's ids"
        instead = "pass --license with the hub's id of one (such as apache-2.0, or other), or state it in README.md"
        raise FormatError("The model card states no licence.", why, instead)


def addressed(card: str, repository: str, license: str | None = None) -> str:
    """The card as it is published: with the repository's name in its examples, and with the licence.

    Raises:
        InputError: `license` is no id, or not the one that the card states.
        FormatError: The card has no front matter.
    """
    stated = front_matter(card).get("license")
    if license is not None:
        _check_license(license, stated)
    if license is not None and stated is None:
        head = _HEAD.match(card)
        assert head is not None  # front_matter has read it
        card = card[: head.end("fields")] + f"license: {license}\n" + card[head.end("fields") :]
    return card.replace(f'"{PLACE}"', f'"{repository}"')


def _check_license(license: str, stated: Any) -> None:
    if not _LICENSE.fullmatch(license):
        why = f"{license!r} is none of the hub's ids, which are lower-case words joined by dashes"
        raise InputError("This is no licence.", why, "pass an id such as apache-2.0, mit or other")
    if stated is not None and stated != license:
        why = f"README.md states {stated!r}, and {license!r} was passed"
        raise InputError("Two licences were named for one oracle.", why, "leave one of them out")


def _listed(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
