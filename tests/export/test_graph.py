from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import SIZE, convnext_folder, learned_model, prompted_model, vit_folder

from ad_dinov3.errors import ConfigError
from ad_dinov3.export.dinov3_graph import BakedRope
from ad_dinov3.export.graph import trace
from ad_dinov3.export.graphs import score_graph
from ad_dinov3.methods.table import borrowing
from ad_dinov3.model import new_model, open_method
from ad_dinov3.ops import whiten


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return vit_folder(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_graph_of_a_vit_scores_as_the_model_does_for_each_class(vit: str, images: torch.Tensor) -> None:
    model = prompted_model(vit)
    graph = score_graph(model, SIZE)
    assert graph.input_names == ["images", "class_index"]
    for index, name in enumerate(graph.class_names):
        with torch.no_grad():
            patch_map, score = graph(images, torch.tensor([index]))
        expected = model.score(images, [name] * 3)
        torch.testing.assert_close(patch_map, expected.patch_map, atol=1e-4, rtol=0)
        torch.testing.assert_close(score, expected.image_score, atol=1e-4, rtol=0)


@pytest.mark.parametrize("is_trained", [True, False])
def test_graph_of_a_convnext_scores_as_the_model_does(is_trained: bool, tmp_path: Path, images: torch.Tensor) -> None:
    trained = learned_model(convnext_folder(tmp_path))
    model = trained if is_trained else new_model(borrowing("dinov3_plain", trained.config))
    graph = score_graph(model, SIZE)
    assert graph.input_names == ["images"]
    with torch.no_grad():
        patch_map, score = graph(images)
    expected = model.score(images, ["object"] * 3)
    torch.testing.assert_close(patch_map, expected.patch_map, atol=1e-3, rtol=0)
    torch.testing.assert_close(score, expected.image_score, atol=1e-3, rtol=0)


def test_rotary_tables_are_constants_and_tensors_are_shared_with_the_model(vit: str) -> None:
    model = prompted_model(vit)
    graph = score_graph(model, SIZE)
    assert isinstance(graph.backbone.rope_embeddings, BakedRope)
    theirs = {id(tensor) for tensor in model.encoder.module.parameters()}  # type: ignore[attr-defined]
    assert {id(tensor) for tensor in graph.backbone.parameters()} <= theirs
    assert not isinstance(model.encoder.module.rope_embeddings, BakedRope)  # type: ignore[attr-defined]


class _Whiten(torch.nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return whiten(tokens)


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_whitening_written_out_equals_the_factorisation(channels: int) -> None:
    from ad_dinov3.export.graph import _written_out

    tokens = torch.randn(2, 40, channels, generator=torch.Generator().manual_seed(3)) * 5 + 2
    with torch.no_grad():
        program = torch.export.export(_Whiten(), (tokens,)).run_decompositions(_written_out())
        found = program.module()(tokens)
    assert not any("linalg" in str(node.target) or "diagonal" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(found, whiten(tokens), atol=1e-4, rtol=1e-4)


def test_traced_graph_takes_any_batch_where_it_is_left_open(vit: str, images: torch.Tensor) -> None:
    model = prompted_model(vit, ("object",))
    program = trace(score_graph(model, SIZE))
    with torch.no_grad():
        for count in (1, 3):
            patch_map, _ = program.module()(images[:count])
            torch.testing.assert_close(
                patch_map, model.score(images[:count], ["object"] * count).patch_map, atol=1e-4, rtol=0
            )


def test_what_has_no_fixed_graph_is_refused_with_the_reason(vit: str) -> None:
    with pytest.raises(ConfigError, match="multiples of 16 px"):
        score_graph(prompted_model(vit), (32, 40))
    wide = learned_model(vit, method__tokens="whiten", method__rarity=0)
    wide.head.widths = (384,)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="384 channels has no fixed graph"):
        score_graph(wide, SIZE)
    with pytest.raises(ConfigError, match=r"Mahalanobis.* has no fixed graph: it is computed by numpy"):
        score_graph(open_method("mahalanobis", "embedded"), SIZE)
