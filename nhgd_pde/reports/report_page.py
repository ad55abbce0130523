"""The report of a run: one page of HTML that needs no other file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..output.atomic import write_atomically
from ..output.names import REPORT
from . import report_sections as sections
from .markup import Markup, joined, tag
from .material import Material, content_of, material_in, whole
from .posterior_section import posterior_section


def report_folder(folder: Path) -> Path:
    """Write report.html into the folder of a run that has ended; returns its path.

    Raises:
        OutputError: there is no run that has ended, or a file of it is damaged.
    """
    with whole(folder):
        text = report_page(material_in(folder))
    write_atomically(folder / REPORT, text)
    return folder / REPORT


def report_page(material: Material) -> str:
    """The text of the page."""
    summary, content = material.summary, content_of(material.problem_yaml)
    name, status = str(summary["name"]), str(summary["status"])
    found = [
        sections.result(material),
        sections.pictures(material),
        sections.what_was_solved(material, content),
        sections.on_what(material),
        sections.convergence(material),
        sections.certificates(material),
        sections.uncertainty(material),
        posterior_section(material),
        sections.work(material),
        sections.warnings(material),
    ]
    shown = [each for each in found if each is not None]
    links = [tag("a", title, href=f"#{place}") for place, title, _ in shown]
    head = [
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{name}: {status}"),
        tag("style", Markup(files(__package__).joinpath("report.css").read_text(encoding="utf-8"))),
    ]
    body = [
        tag("h1", name),
        tag("p", tag("span", status, class_=f"status {status}"), " ", str(summary.get("message") or "")),
        tag("nav", *links),
        *(tag("section", tag("h2", title), *parts, id=place) for place, title, parts in shown),
    ]
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return joined([Markup("<!DOCTYPE html>\n"), page, Markup("\n")])
