"""``python -m warplca`` is the `warplca` command."""

from .cli.main import main

raise SystemExit(main())
