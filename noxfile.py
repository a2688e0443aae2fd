"""The checks of this project; ``nox -l`` lists them."""

import tomllib
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"  # pip, which takes a torch that is at hand
nox.options.sessions = ["tests", "lint"]

PARALLEL = ["-n", "logical", "--maxprocesses", "8", "--dist", "worksteal"]

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, types and workflows."""
    session.install(".[timm,dev]", "check-jsonschema", "zizmor")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    workflows = map(str, sorted(Path(".github/workflows").iterdir()))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", "--no-progress", ".github/workflows")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the quick tests."""
    session.install(".[timm,dev]")
    session.run("python", "-m", "pytest", *PARALLEL, *session.posargs)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Run the long tests on real data."""
    session.install(".[timm,dev]")
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs)


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Inject faults into whole runs."""
    session.install(".[timm,dev]")
    session.run("python", "-m", "pytest", "-m", "faults", *session.posargs)


@nox.session(default=False)
def trackers(session: nox.Session) -> None:
    """Run fits and searches with W&B, MLflow and Comet, offline."""
    session.install(".[timm,dev]", "wandb", "mlflow-skinny", "comet_ml")
    session.run("python", "-m", "pytest", "-m", "trackers", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Print figures of speed; nothing is asserted."""
    session.install(".[timm,dev]")
    for script in sorted(Path("tests/benchmarks").glob("[!_]*.py")):
        if script.stem not in {"accuracy", "label_smoothing"}:  # which take long, and need a folder to write to
            session.run("python", "-m", f"tests.benchmarks.{script.stem}", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into build/site; a warning is an error."""
    session.install(*PROJECT["optional-dependencies"]["docs"])  # the reference needs no torch
    session.run("python", "-m", "mkdocs", "build", "--strict", *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build wheel and sdist, and try the wheel in an environment of its own."""
    session.install("build")
    session.run("python", "-m", "build", "--outdir", session.create_tmp())
    [wheel] = Path(session.create_tmp()).glob("*.whl")
    session.install(str(wheel))
    with session.chdir(session.create_tmp()):
        session.run("imgcls", "--help")
        session.run("imgcls", "fit", "--print_config", silent=True)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """Run the quick tests with the lowest versions that pyproject allows."""
    floors = [requirement.split(",")[0].replace(">=", "==") for requirement in PROJECT["dependencies"]]
    session.install(*floors, ".[timm,dev]")
    session.run("python", "-m", "pytest", *PARALLEL, *session.posargs)
