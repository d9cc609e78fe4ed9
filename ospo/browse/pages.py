"""The pages to look at: rounds, one round, its pairs, one item, parent and child."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ospo.browse.security import REPORT_POLICY
from ospo.browse.site import number_of, picture_response, query_of, site_of
from ospo_core.browsing.comparisons import OUTCOMES, ComparisonQuery, find_comparisons
from ospo_core.browsing.drops import find_drops
from ospo_core.browsing.gallery import PairQuery
from ospo_core.browsing.library import missing
from ospo_core.report.formats import held_out_figures
from ospo_core.report.html import decision_view
from ospo_core.report.stages import stage_lines, total_seconds
from ospo_core.schema import Category, PerturbationKind, StageName
from ospo_core.stages.model_ref import current_model

_LARGEST_PLACE = 2**32 - 2


def rounds(request: Request) -> Response:
    """Show all rounds of the storage."""
    site = site_of(request)
    labelled = set(site.labels.evaluations())
    return site.page("rounds", rounds=site.library.rounds(), current=current_model(site.storage), labelled=labelled)


def one_round(request: Request) -> Response:
    """Show one round: the decision, stages, drops with examples, training curves."""
    site, identity = site_of(request), request.path_params["round"]
    record, manifests = site.library.record(identity), site.library.manifests(identity)
    evaluation = manifests.get(StageName.EVALUATION)
    extra = evaluation.extra if evaluation is not None else {}
    with site.drawing():
        decision = decision_view(extra)
    found = manifests.get(StageName.PAIRS)
    training = manifests.get(StageName.TRAINING)
    return site.page(
        "round",
        record=record,
        stages=stage_lines(manifests),
        seconds=total_seconds(manifests),
        drops=find_drops(site.storage, manifests, record.config),
        decision=decision,
        accuracy=extra.get("accuracy"),
        pairs={"count": found.rows} if found is not None else None,
        training=site.curves(training) if training is not None else None,
        evaluation=evaluation if evaluation is not None and decision is not None else None,
        has_report=site.library.has_report(manifests),
        has_items=StageName.PROMPTS in manifests,
    )


def report(request: Request) -> Response:
    """Show the stored report, in a sandbox: it is a file like any other."""
    found = site_of(request).library.report(request.path_params["round"])
    return Response(found, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


def pairs(request: Request) -> Response:
    """Show a page of the gallery of pairs; the address holds the filters, the order and the page."""
    site, identity = site_of(request), request.path_params["round"]
    manifest, query = site.library.stage(identity, StageName.PAIRS), query_of(PairQuery, request.query_params)
    return site.page(
        "pairs",
        round=identity,
        manifest=manifest,
        query=query,
        found=site.gallery.page(manifest, query),
        sub_categories=site.gallery.sub_categories(manifest),
        categories=[one.value for one in Category],
        kinds=[one.value for one in PerturbationKind],
    )


def item(request: Request) -> Response:
    """Show everything that a round made of one prompt."""
    site, identity = site_of(request), request.path_params["round"]
    manifests = site.library.manifests(identity)
    found = site.items.find(manifests, request.path_params["item"])
    prints: dict[str, Any] = {stage.value: manifest.fingerprint for stage, manifest in manifests.items()}
    return site.page("item", round=identity, item=found, fingerprints=prints)


def comparisons(request: Request) -> Response:
    """Show parent and child side by side on held-out prompts."""
    site, identity = site_of(request), request.path_params["round"]
    manifest = site.library.stage(identity, StageName.EVALUATION)
    query = query_of(ComparisonQuery, request.query_params)
    return site.page(
        "comparisons",
        round=identity,
        manifest=manifest,
        query=query,
        found=find_comparisons(site.storage, manifest, query),
        categories=[one.value for one in Category],
        outcomes=list(OUTCOMES),
        judge=held_out_figures(manifest.extra).get("judge", ""),
    )


def picture(request: Request) -> Response:
    """Return one picture of a table."""
    site, part = site_of(request), request.path_params
    if part["stage"] not in {one.value for one in StageName}:
        raise missing("stage", part["stage"], "Choose a picture from a page")
    manifest = site.library.manifest(StageName(part["stage"]), part["fingerprint"])
    place = number_of(part["place"], "place", _LARGEST_PLACE)
    return picture_response(site.pictures.read(manifest, part["column"], place))
