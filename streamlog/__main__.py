"""`python -m streamlog` is the `streamlog` command."""

from __future__ import annotations

from streamlog.cli.main import main

main(prog_name="streamlog")
