"""`faiss-dmih bench`: the index against FAISS's own, every answer checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from faiss_dmih.bench import FAMILIES, Group, Protocol, Suite, read_suite, run, suites
from faiss_dmih.bench.archive import Archive, identity
from faiss_dmih.bench.cells import grid
from faiss_dmih.bench.cuda.device import CudaDevice
from faiss_dmih.bench.html import html
from faiss_dmih.bench.machine import describe
from faiss_dmih.bench.plots import write_plots
from faiss_dmih.bench.report import markdown
from faiss_dmih.bench.sources import Source
from faiss_dmih.cli.console import show_run
from faiss_dmih.cli.cuda import bench_cuda
from faiss_dmih.cli.terminal import progress_bar, show_error
from faiss_dmih.data import (
    DATASETS,
    HELD_OUT,
    METHODS,
    NEAR_DUPLICATE,
    PLANTED,
    CodeSet,
    DataUnavailable,
    InputError,
    check_bits,
    dataset_codes,
    file_codes,
    located,
)
from faiss_dmih.data.files import Progress, atomic_write

CPU, CUDA = "cpu", "cuda"
MILLION = 1_000_000
PREFERRED = ("cifar10-features", "fashion-mnist", "cifar10")
DOWNLOADED = "fashion-mnist"
"""What is downloaded when none of the preferred sets is here: the smallest of them."""
FALLBACK = "digits"
ONLY_SYNTHETIC = "synthetic"
SYNTHETIC = ("uniform", "clustered")
"""What is measured besides real data."""


@dataclass(frozen=True)
class _Request:
    """The options, checked."""

    data: Path | None
    dataset: str | None
    bits: int | None
    ks: list[int]
    n: int | None
    nq: int | None
    threads: int
    batches: list[int]
    families: list[str]
    kinds: list[str]
    method: str
    seed: int
    cell_seconds: float


def bench(
    context: typer.Context,
    device: Annotated[
        str,
        typer.Option(
            help=f"{CPU}, or {CUDA}: the index on an NVIDIA GPU, against the GPU's limits. That "
            "excludes all options but --seconds, --seed and --out."
        ),
    ] = CPU,
    seconds: Annotated[
        float,
        typer.Option(help=f"With --device {CUDA}: begin nothing after so many seconds."),
    ] = 210.0,
    suite: Annotated[
        str | None,
        typer.Option(
            help=f"Measure a suite instead: one of {', '.join(suites())}, or the path of a .toml "
            "file. Takes up what an earlier run into the same --out has measured, and excludes all "
            "options but --out and --fresh."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --suite: measure everything anew.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help=".npy or .npz with packed uint8 codes (n, bits/8), or with float vectors (n, dim)."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(DATASETS)}; {ONLY_SYNTHETIC}: no real data."),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="Bits per code, a multiple of 8. [default: 64]")
    ] = None,
    k: Annotated[
        list[str] | None, typer.Option(help="Neighbours, such as 1,10. [default: 1,10,100]")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(help="Codes in the database. [default: 1,000,000; digits, files: all]"),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(help="Queries. [default: 1,024, or all there are]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads. [default: all cores]")] = None,
    batch: Annotated[
        list[str] | None, typer.Option(help="Queries per call, such as 1,64. [default: 1,1024]")
    ] = None,
    competitors: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of {', '.join(FAMILIES)}. [default: "
            f"{','.join(name for name, family in FAMILIES.items() if family.by_default)}]"
        ),
    ] = None,
    query_kind: Annotated[
        list[str] | None,
        typer.Option(help=f"{HELD_OUT} or {NEAR_DUPLICATE} or both. [default: {HELD_OUT}]"),
    ] = None,
    binarize: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "itq",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    cell_seconds: Annotated[
        float, typer.Option(help="About how long to measure each cell.")
    ] = Protocol.cell_seconds,
    out: Annotated[Path, typer.Option(help="Folder for JSON, Markdown and plots.")] = Path(
        "bench-out"
    ),
) -> None:
    """Time the index against FAISS's binary indexes and check every answer.

    Measures one real data set and synthetic codes (uniform, planted, clustered), or what --suite
    says, or an NVIDIA GPU; prints tables and writes bench.json, bench.md, plots and, on the CPU,
    bench.html (all of it in one file) and one JSON file per cell into --out. Exit status: 0 if all
    answers are right, whether goals are met or not; 1 if any differs from IndexBinaryFlat's; 2 for
    options that cannot be used, and where there is no GPU.
    """
    console, errors = Console(), Console(stderr=True)
    try:
        if device == CUDA:
            _refuse_others(context, f"--device {CUDA}", ("device", "seconds", "seed", "out"))
            if seconds <= 0:
                raise InputError(f"--seconds must be positive, got {seconds:g}")
            gpu = CudaDevice()  # before a folder is made: there may be none
            _prepare_folder(out)
            if not bench_cuda(gpu, console, errors, out, seed=seed, seconds=seconds):
                raise typer.Exit(1)
            return
        if device != CPU:
            raise InputError(f"unknown device {device!r}; known are {CPU}, {CUDA}")
        if _given(context, "seconds"):
            raise InputError(f"--seconds goes with --device {CUDA}; --cell-seconds without")
        if suite is not None:
            _refuse_others(context, "--suite", ("device", "suite", "fresh", "out"))
            plan = read_suite(suite)
        elif fresh:
            raise InputError("--fresh goes with --suite; without it everything is measured anew")
        else:
            request = _checked(
                _Request(
                    data=data,
                    dataset=dataset,
                    bits=bits,
                    ks=_integers("--k", k, [1, 10, 100]),
                    n=n,
                    nq=queries,
                    threads=len(os.sched_getaffinity(0)) if threads is None else threads,
                    batches=_integers("--batch", batch, [1, 1024]),
                    families=_words(competitors)
                    or [name for name, family in FAMILIES.items() if family.by_default],
                    kinds=_words(query_kind) or [HELD_OUT],
                    method=binarize,
                    seed=seed,
                    cell_seconds=cell_seconds,
                )
            )
        _prepare_folder(out)
        reuse = suite is not None and not fresh
        archive = Archive(out / "cells", identity(describe()), reuse)
        with progress_bar(console) as progress:
            if suite is None:
                plan = _grid_suite(request, errors, progress)
            result = run(plan, archive=archive, progress=progress)
    except (InputError, DataUnavailable) as error:
        show_error(errors, str(error))
        raise typer.Exit(2) from error
    result.save(out / "bench.json")
    plots = write_plots(result, out)
    with atomic_write(out / "bench.md") as file:
        file.write(markdown(result, [path.name for path in plots]).encode())
    with atomic_write(out / "bench.html") as file:
        file.write(html(result, plots).encode())
    show_run(console, result)
    names = ", ".join(["bench.json", "bench.md", "bench.html", *(path.name for path in plots)])
    earlier = f" ({result.reused} results of an earlier run)" if result.reused else ""
    console.print(
        f"{result.seconds:.0f} s{earlier}. Wrote {names} and cells/ to {out}/",
        highlight=False,
        soft_wrap=True,
    )
    if result.failures():
        raise typer.Exit(1)


def _given(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_others(context: typer.Context, option: str, allowed: tuple[str, ...]) -> None:
    """`option` says itself what is measured."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in allowed and _given(context, name):
            other = parameter.opts[0]
            raise InputError(f"{option} says what is measured: leave {other} out, or {option}")


def _words(values: list[str] | None) -> list[str]:
    """Options may be repeated, hold commas, or both."""
    words = [word.strip() for value in values or [] for word in value.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def _integers(option: str, values: list[str] | None, default: list[int]) -> list[int]:
    words = _words(values)
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        raise InputError(f"{option} takes numbers such as 1,10,100, got {values}") from None
    for number in numbers:
        if number <= 0:
            raise InputError(f"{option} must be positive, got {number}")
    return sorted(set(numbers)) or default


def _checked(request: _Request) -> _Request:
    if request.data is not None and request.dataset is not None:
        raise InputError("--data and --dataset exclude each other; leave one out")
    for what, words, known in (
        ("data set", [request.dataset or ONLY_SYNTHETIC], [*DATASETS, ONLY_SYNTHETIC]),
        ("competitor", request.families, list(FAMILIES)),
        ("query kind", request.kinds, [HELD_OUT, NEAR_DUPLICATE]),
        ("binarisation", [request.method], list(METHODS)),
    ):
        for word in words:
            if word not in known:
                raise InputError(f"unknown {what} {word!r}; known are {', '.join(known)}")
    if request.bits is not None:
        check_bits(request.bits)
    for option, value in (
        ("--n", request.n),
        ("--queries", request.nq),
        ("--threads", request.threads),
    ):
        if value is not None and value <= 0:
            raise InputError(f"{option} must be positive, got {value}")
    if request.cell_seconds <= 0:
        raise InputError(f"--cell-seconds must be positive, got {request.cell_seconds:g}")
    if request.nq is not None and max(request.batches) > max(request.nq, 1024):
        raise InputError(
            f"--batch {max(request.batches)} needs as many --queries, got {request.nq}"
        )
    return request


def _prepare_folder(out: Path) -> None:
    """Find out before the measurements, not after, whether results can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made a folder ({error})") from error


def _grid_suite(request: _Request, errors: Console, progress: Progress) -> Suite:
    """What the options ask for: one real data set, and the synthetic ones."""
    groups = []
    real = _real_codes(request, errors, progress)
    if real is not None:
        kinds = [kind for kind in request.kinds if kind in real.queries]
        if not kinds:
            raise InputError(f"{real.name} has queries of kind {', '.join(real.queries)} only")
        groups.append(
            _group(request, lambda _: real, real.name, real.d, real.n, _sizes(real, kinds))
        )
    bits = real.d if real is not None else request.bits or 64
    n = request.n or MILLION
    nq = request.nq or max(1024, *request.batches)
    for name in SYNTHETIC:
        source = Source(name, bits, n, nq, request.seed)
        sizes = dict.fromkeys(source.kinds, nq)
        groups.append(_group(request, source.load, name, bits, n, sizes))
    return Suite(groups, protocol=_protocol(request), threads=request.threads, seed=request.seed)


def _group(
    request: _Request,
    load: Callable[[Progress], CodeSet],
    name: str,
    d: int,
    n: int,
    nq: dict[str, int],
) -> Group:
    # A planted query has one true neighbour; beyond it lie uniform codes, measured as such.
    ks = {kind: [1] if kind == PLANTED else request.ks for kind in nq}
    cells = grid(name, d=d, n=n, nq=nq, ks=ks, batches=request.batches, threads=request.threads)
    return Group(load, dict.fromkeys(cells, request.families), _protocol(request))


def _protocol(request: _Request) -> Protocol:
    return Protocol(cell_seconds=request.cell_seconds)


def _sizes(codes: CodeSet, kinds: list[str]) -> dict[str, int]:
    return {kind: len(codes.queries[kind]) for kind in kinds}


def _real_codes(request: _Request, errors: Console, progress: Progress) -> CodeSet | None:
    if request.dataset == ONLY_SYNTHETIC:
        return None
    if request.data is not None:
        return file_codes(
            request.data,
            bits=request.bits,
            n=request.n,
            nq=request.nq,
            method=request.method,
            seed=request.seed,
        )
    name = request.dataset or _found()
    codes = partial(
        dataset_codes,
        bits=request.bits or 64,
        nq=request.nq,
        method=request.method,
        seed=request.seed,
        progress=progress,
    )
    if name is None:
        try:
            return codes(DOWNLOADED, n=request.n or MILLION)
        except DataUnavailable as error:
            errors.print(
                f"No real data set here, so {FALLBACK} is measured, at its own size. {error}",
                highlight=False,
                soft_wrap=True,
            )
            return codes(FALLBACK, n=None)
    own_size = None if name == FALLBACK else MILLION
    return codes(name, n=request.n or own_size)


def _found() -> str | None:
    return next((name for name in PREFERRED if located(name)), None)
