"""`metatl serve`: answer requests for recommendations over HTTP."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from metatl.cli.errors import Command
from metatl.cli.options import served_item_table_option

_LOCAL = ("127.0.0.1", "::1", "localhost")


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", help="Address to listen on; by default this machine only.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="Port; 0 for any free one.")
@click.option(
    "--items",
    type=click.Path(path_type=Path),
    help="Table of the items: item_id, title, picture and any columns. The wines bring their own.",
)
@served_item_table_option
@click.option("--approximate", is_flag=True, help="Approximate lists, in catalogues from 300,000 items on.")
@click.option("--workers", default=1, type=click.IntRange(min=1), help="Processes that answer.")
@click.option("--threads", default=1, type=click.IntRange(min=1), help="Threads of each process.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second of one client.")
@click.option(
    "--timeout", default=10.0, type=click.FloatRange(min=0, min_open=True), help="Seconds of a request."
)
@click.option("--max-body", default=2**20, type=click.IntRange(min=1), help="Bytes of a request.")
@click.option("--max-histories", default=1000, type=click.IntRange(min=1), help="Histories in a request.")
@click.option("--log-requests", is_flag=True, help="Print a line for each request.")
def serve(
    run: Path,
    host: str,
    port: int,
    items: Path | None,
    item_table: str | None,
    workers: int,
    threads: int,
    rate: float | None,
    timeout: float,
    max_body: int,
    max_histories: int,
    *,
    approximate: bool,
    log_requests: bool,
) -> None:
    """Answer requests with the run directory RUN, until Ctrl-C or SIGTERM.

    A new run in RUN is taken over within a second, without a failed request. A page at / tries it out.

    \b
    Examples:
      metatl serve runs/wines
      metatl serve runs/shop --items items.csv --port 9000 --workers 2
      curl -d '{"history": [100001, 100010]}' localhost:8000/recommend
    """  # noqa: D301 (click reads the character)
    try:
        import uvicorn

        from metatl.serving.service import app
        from metatl.serving.service.settings import ServiceSettings
    except ImportError as error:
        raise click.UsageError(
            f"found no {error.name}, which the service needs; pip install 'metatl[serve]'"
        ) from None

    settings = ServiceSettings(
        run=str(run.absolute()),
        items=None if items is None else str(items.absolute()),
        item_table=item_table,
        approximate=approximate,
        threads=threads,
        rate=rate,
        timeout=timeout,
        max_body_bytes=max_body,
        max_histories=max_histories,
    )
    recommender = app.load(settings)  # an error here is one line, and no worker starts
    served = recommender.run
    if host not in _LOCAL:
        click.echo(f"warning: listening on {host}: whoever reaches this machine can ask", err=True)
    click.echo(f"{served.record.model} with {served.num_items:,} items, on http://{host}:{port}")
    del recommender, served
    settings.export()
    if workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="metatl-metrics-")
    uvicorn.run(
        "metatl.serving.service.app:from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_level="info" if log_requests else "warning",
        access_log=log_requests,
        server_header=False,
        timeout_graceful_shutdown=int(timeout) + 1,
    )
