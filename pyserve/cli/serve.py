"""`pyserve serve`: options become a `ServerConfig`, and the server runs."""

from pathlib import Path

import click


@click.command("serve", short_help="Serve models over HTTP and gRPC.")
@click.argument("model_file", nargs=-1, type=click.Path(path_type=str))
@click.option(
    "--model-repository",
    "model_repository",
    multiple=True,
    metavar="DIR",
    help="A folder of models: DIR/NAME/VERSION/model.pt. Repeatable.",
)
@click.option(
    "--config", "config_file", metavar="FILE", help="Read these options from a YAML file."
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on. [default: 127.0.0.1]")
@click.option(
    "--http-port", type=int, metavar="PORT", help="0 takes any free port. [default: 8000]"
)
@click.option(
    "--grpc-port", type=int, metavar="PORT", help="0 takes any free port. [default: 8001]"
)
@click.option("--grpc/--no-grpc", default=None, help="Whether to serve gRPC too. [default: grpc]")
@click.option("--device", metavar="DEVICE", help="auto, cpu or cuda:N. [default: auto]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="[NAME:]KEY=VALUE",
    help="Any key of a model's config.yaml, such as batching.max_batch_size=32. Repeatable.",
)
@click.option(
    "--model-control",
    type=click.Choice(["none", "explicit", "poll"]),
    help="none: no changes. explicit: load and unload by request (default on a loopback "
    "address). poll: follow the repository.",
)
@click.option(
    "--load-model",
    multiple=True,
    metavar="NAME",
    help="Load only this model at start. Repeatable. [default: all]",
)
@click.option(
    "--management-token",
    envvar="PYSERVE_MANAGEMENT_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="Ask for this token (Authorization: Bearer TOKEN) before models are changed.",
)
@click.option(
    "--max-body-bytes",
    type=int,
    metavar="BYTES",
    help="Largest request body, also after decompression. [default: 64 MiB]",
)
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=float,
    metavar="SECONDS",
    help="How long requests in flight may take after SIGTERM or SIGINT. [default: 30]",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="Form of the log. [default: text]"
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="What is worth a line. [default: info]",
)
@click.option(
    "--express/--no-express",
    default=None,
    help="Whether plain inference requests take the express lane past aiohttp. [default: express]",
)
@click.option(
    "--shared-memory",
    is_flag=True,
    default=None,
    help="Let clients on this machine pass tensors in system shared memory.",
)
@click.option(
    "--cors-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin, such as https://app.example, send requests. Repeatable.",
)
@click.option(
    "--model-store",
    metavar="DIR",
    help="A folder of TorchServe's archives (.mar, .tar.gz) to serve.",
)
@click.option(
    "--ts-config", metavar="FILE", help="Read addresses and models from TorchServe's config file."
)
@click.option(
    "--torchserve-ports",
    is_flag=True,
    default=None,
    help="Serve TorchServe's API on its own ports too: 8080, 8081 and 8082, and 7070 and 7071.",
)
@click.option(
    "--allowed-url",
    "allowed_urls",
    multiple=True,
    metavar="PREFIX",
    help="Let archives be registered from URLs that begin so. Repeatable. [default: none]",
)
@click.option(
    "--allow-handlers",
    is_flag=True,
    default=None,
    help="Run the Python code that models bring along. Only for models that you trust.",
)
@click.option("--request-log", is_flag=True, default=None, help="Log a line for every request.")
def command(
    model_file: tuple[str, ...],
    model_repository: tuple[str, ...],
    config_file: str | None,
    settings: tuple[str, ...],
    load_model: tuple[str, ...],
    cors_origin: tuple[str, ...],
    allowed_urls: tuple[str, ...],
    **options: object,
) -> None:
    """Serve MODEL_FILEs and the models of repositories over HTTP and gRPC.

    \b
    A model file is named by its stem and served as version 1:
      pyserve serve digits.pt
      curl http://127.0.0.1:8000/v2/models/digits

    A line on standard output says when all models are loaded and warm. SIGTERM or Ctrl-C finishes
    what is in flight and exits with 0; a second one ends at once.
    """
    from pyserve import __version__, log
    from pyserve.config import ServerConfig, load_server_config
    from pyserve.server import serve

    config = load_server_config(Path(config_file)) if config_file else ServerConfig()
    lists = {
        "models": model_file,
        "model_repository": model_repository,
        "settings": settings,
        "load_model": load_model,
        "cors_origin": cors_origin,
        "allowed_urls": allowed_urls,
    }
    given = {name: list(value) for name, value in lists.items() if value}
    config = config.with_options({**options, **given})
    log.set_up(config.log_format, config.log_level, requests=config.request_log)
    raise SystemExit(serve(config, version=__version__))
