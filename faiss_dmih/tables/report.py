"""Tables for people and for programs: Markdown, one HTML file, JSON, pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faiss_dmih.bench.machine import Machine
from faiss_dmih.data.errors import require
from faiss_dmih.folders import atomic_folder
from faiss_dmih.tables.layout import Section
from faiss_dmih.tables.plan import ABOUT, Plan
from faiss_dmih.tables.published import SLIPS

MARK = "tables.md"
FORMAT = "faiss_dmih tables 1"
_TEMPLATE = Path(__file__).parent / "templates" / "tables.html"
_HEAD = (
    "Lines in italics are the papers' own figures, the others are measured. What was not run says "
    "why; in what a setting differs from the paper's is said above each table."
)


def write_report(
    target: Path,
    sections: Sequence[Section],
    papers: dict[str, str],
    plan: Plan,
    machine: Machine,
    left: int,
) -> None:
    """tables.md, tables.html, tables.json and pictures, into a folder that takes the place of
    `target` at the end. `left` pieces of work are not done yet."""
    with atomic_folder(target) as scratch:
        for section in sections:
            for picture in section.pictures:
                picture.draw(scratch / f"{picture.name}.png")
        about = setting(plan, machine, left)
        (scratch / MARK).write_text(markdown(sections, papers, about), encoding="utf-8")
        page = html(sections, papers, about, scratch)
        (scratch / "tables.html").write_text(page, encoding="utf-8")
        said = {
            "format": FORMAT,
            "plan": asdict(plan),
            "machine": asdict(machine),
            "tables": [_plain(section) for section in sections],
        }
        text = json.dumps(said, indent=1) + "\n"
        (scratch / "tables.json").write_text(text, encoding="utf-8")


def setting(plan: Plan, machine: Machine, left: int) -> list[str]:
    """Where and how, in lines."""
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    lines = [
        f"Schedule {plan.schedule}: {ABOUT[plan.schedule]}. Here: {', '.join(plan.data)}; "
        f"{', '.join(map(str, plan.bits))} bits; {plan.seeds} "
        f"{'seed' if plan.seeds == 1 else 'seeds'}, {plan.epochs} epochs.",
        f"{machine.cpu}, {cores}, load {machine.load_before:g} at the end; "
        f"FAISS {machine.faiss}, faiss_dmih {machine.faiss_dmih} ({machine.simd}); {machine.date}.",
        _HEAD,
    ]
    if left:
        lines.append(f"**Not complete**: {left} pieces of work are not done yet.")
    return lines


def markdown(sections: Sequence[Section], papers: dict[str, str], about: Sequence[str]) -> str:
    """The whole report; pictures are beside it."""
    out = ["# The papers' tables", ""]
    for line in about:
        out += [line, ""]
    paper = ""
    for section in sections:
        if (mine := section.key.split("-")[0]) != paper:
            paper = mine
            out += [f"## {papers[paper]}", ""]
            out += [*(f"- As printed: {slip}" for slip in SLIPS[paper]), ""] if SLIPS[paper] else []
        out += [f'<a id="{section.key}"></a>', "", f"### {section.title}", "", section.caption, ""]
        out += [*(f"- {line}" for line in section.differences), ""]
        headings = (*section.labels, *section.columns)
        rule = ["---"] * len(section.labels) + ["--:"] * len(section.columns)
        lines = [headings, rule]
        for row in section.rows:
            cells = (*row.labels, *(section.cell(figure) for figure in row.figures))
            lines.append([f"*{c}*" if c and row.published else c for c in cells])
        out += [f"| {' | '.join(line)} |" for line in lines]
        out.append("")
        if section.reasons:
            out += ["Not run:", ""]
            out += [f"{i}. {why}" for i, why in enumerate(section.reasons, 1)]
            out.append("")
        for picture in section.pictures:
            out += [f"![{picture.about}]({picture.name}.png)", ""]
    return "\n".join(out).rstrip() + "\n"


def html(
    sections: Sequence[Section], papers: dict[str, str], about: Sequence[str], folder: Path
) -> str:
    """One page with the pictures in it, which needs no network."""
    jinja2 = require("jinja2", "the report as HTML")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))

    def source(name: str) -> str:
        encoded = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        return f"data:image/png;base64,{encoded}"

    parts = [
        (name, SLIPS[key], [s for s in sections if s.key.split("-")[0] == key])
        for key, name in papers.items()
    ]
    page: str = template.render(
        about=[line.replace("**", "") for line in about],
        parts=[part for part in parts if part[2]],
        source=source,
    )
    return page


def _plain(section: Section) -> dict[str, Any]:
    """For JSON: figures with all their values."""
    return {
        "key": section.key,
        "title": section.title,
        "caption": section.caption,
        "differences": section.differences,
        "labels": section.labels,
        "columns": section.columns,
        "rows": [
            {
                "labels": row.labels,
                "published": row.published,
                "figures": [
                    {"values": f.values, "not_run": f.why} if f.why else {"values": f.values}
                    for f in row.figures
                ],
            }
            for row in section.rows
        ],
        "pictures": [f"{picture.name}.png" for picture in section.pictures],
    }
