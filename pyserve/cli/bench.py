"""`pyserve bench`: latency and throughput of models, beside what the machine could do at best."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pyserve.bench.suite import Options, Target


def _numbers(kind: type[int] | type[float]) -> Any:
    """Return a click callback for a list of numbers above 0, with commas between."""

    def parse(ctx: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
        try:
            numbers = tuple(kind(word) for word in text.split(",") if word.strip())
        except ValueError:
            numbers = (0,)
        if any(number <= 0 for number in numbers):
            raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,8,32")
        return numbers

    return parse


_MOST_S = click.FloatRange(min=0, max=600, min_open=True)


@click.command("bench", short_help="Measure latency and throughput.")
@click.argument("target", nargs=-1, required=True)
@click.option("--url", metavar="URL", help="Measure models of this server: TARGETs are names.")
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice(["in-process", "http"]),
    help="Measure only this; repeatable. [default: both]",
)
@click.option(
    "--connections",
    default="1,8,32,64",
    show_default=True,
    callback=_numbers(int),
    metavar="N,...",
    help="Closed loops over HTTP: that many connections, each always waiting for an answer.",
)
@click.option(
    "--rate",
    "rates",
    default="",
    callback=_numbers(float),
    metavar="N,...",
    help="Open loops over HTTP: that many arrivals a second, at random, answers or not.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="Threads, and asyncio tasks, that call the in-process engine.",
)
@click.option(
    "--seconds", type=_MOST_S, default=3.0, show_default=True, help="Time of each measurement."
)
@click.option("--warm-up", "warm_up_s", type=_MOST_S, default=1.0, show_default=True)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Figures are medians over so many.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(1),
    default=1_000_000,
    show_default=True,
    help="Ends a measurement of the built-in generator early; wrk knows time alone.",
)
@click.option(
    "--body",
    type=click.Choice(["binary", "raw", "json"]),
    default="binary",
    show_default=True,
    help="Form of requests: JSON and bytes, the input's bytes alone, or JSON.",
)
@click.option("--rows", type=click.IntRange(1, 65536), default=1, show_default=True)
@click.option(
    "--generator",
    type=click.Choice(["auto", "wrk", "builtin"]),
    default="auto",
    show_default=True,
    help="What drives closed loops. auto: wrk where it is installed.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any key of a model's config.yaml. Repeatable.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the arrivals.")
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the results to FILE as well; - prints them."
)
def command(target: tuple[str, ...], url: str | None, json_file: str | None, **given: Any) -> None:
    """Measure each TARGET: a model file, or NAME@URL for a model of a server on this machine.

    \b
      pyserve bench model.pt
      pyserve bench model.pt --rate 500,1000 --json results.json
      pyserve bench digits@http://127.0.0.1:8000
      pyserve bench digits --url http://other.machine:8000

    Beside a model file's figures stand its floors, taken in the same run: the bare module called
    from Python, and an aiohttp handler that does nothing. Measure on an idle machine.
    """
    import msgspec

    from pyserve.bench import machine
    from pyserve.bench.percentiles import require_hdrhistogram
    from pyserve.bench.report import document, show
    from pyserve.bench.suite import Options

    require_hdrhistogram()
    given["modes"] = given["modes"] or ("in-process", "http")
    options = msgspec.convert(given, Options)
    where = machine.describe()
    results = [_measure(one, url, options) for one in target]
    text = msgspec.json.format(
        msgspec.json.encode(document(results, options, where)), indent=2
    ).decode()
    if json_file == "-":
        click.echo(text)
        return
    if json_file:
        Path(json_file).write_text(text + "\n")
    show(results)


def _measure(target: str, url: str | None, options: "Options") -> "Target":
    from pyserve.bench.suite import is_loopback, measure_file, measure_url
    from pyserve.cli.terminal import progress_bar
    from pyserve.errors import ConfigError

    with progress_bar(target) as progress:
        if url:
            return measure_url(target, url, options, progress)
        name, at, address = target.rpartition("@")
        if at and "://" in address:
            if not is_loopback(address):
                raise ConfigError(
                    f"{address} is not this machine; if its owner agrees to the load: "
                    f"pyserve bench {name} --url {address}"
                )
            return measure_url(name, address, options, progress)
        return measure_file(Path(target), options, progress)
