"""`python -m augury`."""

from __future__ import annotations


def _main() -> None:
    from augury.cli import main

    main()


if __name__ == "__main__":
    _main()
