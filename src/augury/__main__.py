"""`python -m augury`."""

from __future__ import annotations

if __name__ == "__main__":
    from augury.cli import main

    main()
