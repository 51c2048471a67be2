"""The results of a run on a GPU for people: in words and in tables."""

from __future__ import annotations

from faiss_dmih.bench.cuda.competitors import AUTO, GPU_FLAT, PROBE, SCAN, TENSOR
from faiss_dmih.bench.cuda.limits import FLAT_BOUND
from faiss_dmih.bench.cuda.results import (
    OF_FLOOR,
    OF_POPC,
    OF_TENSOR,
    PAIRS,
    QUERIES,
    CudaCell,
    CudaRun,
    Timed,
)
from faiss_dmih.bench.report import duration, goals_table, quantity, shown
from faiss_dmih.bench.results import Figure


def setting(run: CudaRun) -> list[str]:
    """Where it was measured."""
    g, m = run.gpu, run.machine
    return [
        f"{g.name}, {g.multiprocessors} multiprocessors of compute capability "
        f"{g.compute_capability}, up to {g.clock_mhz:,.0f} MHz, {g.memory_gib:g} GiB, "
        f"{g.l2_mib:g} MiB of L2 cache; driver {g.driver or 'unknown'} (CUDA {g.cuda_driver}), "
        f"CUDA runtime {g.cuda_runtime}, CuPy {g.cupy}.",
        f"{m.date}. Host: {m.cpu}, {run.threads} threads, {m.simd}, {m.ram_gib:g} GiB; "
        f"faiss_dmih {m.faiss_dmih}, faiss {m.faiss}. Seed {run.seed}, {run.seconds:.0f} s in all.",
    ]


def title(result: CudaCell) -> str:
    """The heading of a cell."""
    cell = result.cell
    return f"{cell.n:,} codes of {cell.d} bits; {cell.task}"


def against_limit(timed: Timed) -> str:
    """How a scan compares with what the device can do; empty for others."""
    if figure := timed.figure(OF_POPC):
        return f"{quantity(figure.value.median, figure.unit)} of POPC"
    if figure := timed.figure(OF_TENSOR):
        return f"{quantity(figure.value.median, figure.unit)} of tensor cores"
    if figure := timed.figure(OF_FLOOR):
        return f"{quantity(figure.value.median, figure.unit)} the floor"
    return ""


def median(figure: Figure | None) -> str:
    """Of a figure that a competitor may not have."""
    return "" if figure is None else quantity(figure.value.median, figure.unit)


def missing(run: CudaRun) -> list[str]:
    """What was not measured, and why, in sentences."""
    reasons: dict[str, list[str]] = {}
    for where, why in [*run.absent.items(), *run.skipped.items()]:
        reasons.setdefault(why, []).append(where)
    return [f"{', '.join(where)}: {why}" for why, where in reasons.items()]


def derived(run: CudaRun) -> str:
    """What is known of FAISS's index where it cannot be measured; empty where it was."""
    if GPU_FLAT not in run.absent:
        return ""
    return (
        f"GpuIndexBinaryFlat was not measured. Derived from its compiled code, for codes of up to "
        f"256 bits on an H200: at most {quantity(FLAT_BOUND, '/s')} pairs."
    )


def markdown(run: CudaRun, images: list[str]) -> str:
    """The whole report; `images` are file names to show, relative to the report."""
    lines = ["# faiss_dmih bench, CUDA", "", *setting(run), ""]
    if failures := run.failures():
        lines += [f"**{len(failures)} failed:**", "", *(f"- {f}" for f in failures), ""]
    if gaps := missing(run):
        lines += ["**Not measured:**", "", *(f"- {gap}" for gap in gaps), ""]
    if run.outcomes:
        lines += ["## Goals", "", *goals_table(run.outcomes), ""]
    lines += [line for name in images for line in (f"![{name}]({name})", "")]
    lines += ["## Limits of the device", "", "| | median | range |", "|---|--:|--:|"]
    for figure in run.limits.figures():
        lines.append("| {} | {} | {} |".format(figure.what, *shown(figure.value, figure.unit)))
    for result in run.cells:
        lines += ["", f"## {title(result)}", "", *_cell(result)]
    lines += ["", "## Building", "", *_builds(run), "", "## How to read this", "", *_legend(run)]
    return "\n".join(lines) + "\n"


def _cell(result: CudaCell) -> list[str]:
    lines = [
        "| competitor | a call | range | alone | queries/s | pairs/s | | queries x rounds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for timed in result.timed:
        if timed.error:
            lines.append(f"| {timed.competitor} **FAILED** | {_cut(timed.error)} |" + " |" * 6)
            continue
        columns = (
            *(timed.competitor, *shown(timed.seconds, "s"), shown(timed.alone, "s")[0]),
            *(median(timed.figure(QUERIES)), median(timed.figure(PAIRS)), against_limit(timed)),
            f"{timed.nq:,} x {timed.rounds}",
        )
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def _builds(run: CudaRun) -> list[str]:
    lines = ["| codes | index | add | codes/s | bytes per code |", "|---|---|--:|--:|--:|"]
    for b in run.builds:
        head = f"| {b.n:,} x {b.d} bits | {b.competitor} "
        if b.seconds is None:
            lines.append(f"{head}**FAILED** | {_cut(b.error)} | | |")
            continue
        size = "" if b.bytes is None else f"{b.bytes / b.n:.1f}"
        add = b.seconds.median
        lines.append(f"{head}| {duration(add)} | {b.n / add:.3g} | {size} |")
    return lines


def _cut(error: str) -> str:
    return error.replace("|", "/").replace("\n", " ")


def _legend(run: CudaRun) -> list[str]:
    checked = max((result.checked for result in run.cells), default=0)
    lines = [
        f"- {SCAN}, {TENSOR}, {PROBE} and {AUTO} are the engines of one GpuIndexDMIH, which take "
        "turns with each other and with the rest; times are medians over rounds, with the smallest "
        "and the largest.",
        "- A call of theirs is timed by the device's clock, from arrays on the device to arrays on "
        "the device, with cold caches and with the host ahead. *Alone* is the same call on an idle "
        "device by the host's clock, with all that Python takes. The others are timed by the "
        "host's clock, from its arrays to its arrays.",
        "- Pairs are all pairs of a query and a code. POPC: the 32-bit words of these pairs whose "
        "bits are counted, of what the device can count. Tensor cores: each 128 bits "
        "of these pairs, begun or whole, of what a bare loop of products does. The floor: reading "
        "all codes once.",
        "- One that would take over a second a call, or a tenth by the host's clock, is given "
        "fewer queries; the last column says how many.",
        f"- Of each cell the first queries, up to {checked}, were compared with IndexBinaryFlat's "
        "answers bit for bit, the others with the answers of whoever was right there.",
    ]
    if bound := derived(run):
        lines.append(f"- {bound}")
    return lines
