"""The page of a benchmark: tables of one model and of two, published results, texts shown as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ospo_core.artifacts.storage import Storage
from ospo_core.report.benchmark import markdown_page, published_table, score_table, write_html


def group(score: float) -> dict[str, float]:
    return {"prompts": 2, "score": score, "low": score - 0.1, "high": score + 0.1}


def page(**changes: Any) -> dict[str, Any]:
    model = {"name": "<i>one</i>", "digest": "a" * 64, "groups": {"color": group(0.5)}, "drops": {}, "pictures": 4}
    shown: dict[str, Any] = {
        "benchmark": "t2i-compbench",
        "samples": 2,
        "guidance": 5.0,
        "temperature": 1.0,
        "sources": {"samples": "10: there"},
        "changed": [],
        "scored_by": "Scored by somebody.",
        "categories": ["color", "spatial"],
        "models": [model],
        "difference": None,
        "published": [{"model": "P", "source": "arXiv 1", "scores": {"color": 0.5212, "all": 0.8}}],
    }
    return {**shown, **changes}


def test_one_model_has_a_column_and_a_dash_where_it_has_no_score() -> None:
    assert score_table(page()) == [
        ["category", "prompts", "<i>one</i>"],
        ["color", "2", "0.500 (0.400 to 0.600)"],
        ["spatial", "", "\N{EN DASH}"],
    ]


def test_two_models_have_a_difference() -> None:
    change = {"color": {"prompts": 2, "difference": -0.25, "low": -0.5, "high": 0.125}}
    table = score_table(page(models=page()["models"] * 2, difference=change))
    assert table[0][-1] == "difference" and table[1][-1] == "-0.250 (-0.500 to +0.125)"


def test_published_results_have_their_source() -> None:
    assert published_table(page()) == [["model", "color", "all prompts", "source"], ["P", "0.5212", "0.80", "arXiv 1"]]
    assert published_table(page(published=[])) == [["model", "source"]]


def test_texts_are_shown_as_text(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    models = [{**page()["models"][0], "drops": {"undecidable": 3}}]
    write_html(storage, page(models=models, changed=["samples 2 instead of 10"]), "reports/b.html")
    html = (tmp_path / "reports" / "b.html").read_text(encoding="utf-8")
    assert "<i>one</i>" not in html and "&lt;i&gt;one&lt;/i&gt;" in html
    assert "3 without a score (undecidable)" in html and "samples 2 instead of 10" in html and "10: there" in html
    words = markdown_page(page(changed=["x"]))
    assert "Not the protocol: x" in words and "\\<i\\>one" in words and "arXiv 1" in words
