"""Pruning of the architectures that people use."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import pytest
import torch
from network_builders import run_onnx
from prune_builders import architecture, example, logits, losses, parameters, zeroed

from edgekit.compiler.prune.adapters import ADAPTERS, find_structures, transformer
from edgekit.compiler.prune.plan import PruneSettings, apply_plan, load, plan_pruning, save
from edgekit.errors import ModelError

slow = pytest.mark.slow
IMG = {"img_size": 64}
NO_AUX = {"aux_logits": False, "init_weights": False}
# Source, side of the frame, arguments, and whether norms over channels keep the pruned network from being compared.
NETWORKS = [
    pytest.param("timm:test_resnet", 64, {}, True, id="tiny-resnet"),
    pytest.param("timm:resnet18", 64, {}, True, id="resnet18", marks=slow),
    pytest.param("timm:resnet50", 64, {}, True, id="resnet50", marks=slow),
    pytest.param("timm:densenet121", 64, {}, True, id="densenet121", marks=slow),
    pytest.param("torchvision:densenet121", 64, {}, True, id="torchvision-densenet121", marks=slow),
    pytest.param("timm:tf_efficientnet_lite0", 64, {}, True, id="efficientnet-lite0"),
    pytest.param("timm:efficientnet_b0", 64, {}, True, id="efficientnet-b0", marks=slow),
    pytest.param("timm:mobilenetv2_050", 64, {}, True, id="mobilenetv2"),
    pytest.param("timm:mobilenetv3_small_100", 64, {}, True, id="mobilenetv3"),
    pytest.param("timm:mobilenetv4_conv_small", 64, {}, True, id="mobilenetv4", marks=slow),
    pytest.param("timm:regnety_004", 64, {}, True, id="regnety"),
    pytest.param("timm:convnext_atto", 64, {}, False, id="convnext"),
    pytest.param("torchvision:convnext_tiny", 64, {}, False, id="torchvision-convnext", marks=slow),
    pytest.param("torchvision:vgg11_bn", 64, {}, True, id="vgg11", marks=slow),
    pytest.param("timm:inception_v3", 96, {}, True, id="inception", marks=slow),
    pytest.param("torchvision:inception_v3", 96, NO_AUX, True, id="torchvision-inception", marks=slow),
    pytest.param("timm:legacy_xception", 96, {}, True, id="xception", marks=slow),
    pytest.param("timm:xception41", 96, {}, True, id="xception41", marks=slow),
    pytest.param("timm:vit_tiny_patch16_224", 64, IMG, True, id="vit-tiny"),
    pytest.param("timm:deit_tiny_distilled_patch16_224", 64, IMG, True, id="deit-tiny"),
    pytest.param("timm:swin_tiny_patch4_window7_224", 64, {**IMG, "depths": (2, 2), "num_heads": (3, 6)}, True, id="swin-of-two-stages"),
    pytest.param("timm:swin_tiny_patch4_window7_224", 64, IMG, True, id="swin-tiny", marks=slow),
    pytest.param("torchvision:swin_t", 64, {}, True, id="torchvision-swin", marks=slow),
    pytest.param("torchvision:vit_b_16", 64, {"image_size": 64}, True, id="torchvision-vit", marks=slow),
]


def settings(ratio=0.4, **changes):
    return PruneSettings(**{"criterion": "l2", "ratio": ratio, "round_to": 16, **changes})


@pytest.mark.parametrize(("source", "side", "arguments", "comparable"), NETWORKS)
def test_an_architecture_is_pruned(source, side, arguments, comparable, tmp_path):
    """With 40 % of the channels to go the network is smaller, in multiples of 16, computes what is left of it, and is rebuilt from files bit for bit."""
    module, frame = architecture(source, side, **arguments), example(side)
    plan = plan_pruning(module, frame, settings())
    assert plan.removed_share == pytest.approx(0.4, abs=0.06)
    for width in plan.widths:
        assert width.after == width.before or width.kind == "attention heads" or width.after * width.channels % 16 == 0
    pruned = apply_plan(module, plan)
    assert parameters(pruned) < 0.8 * parameters(module)
    answer = logits(pruned, frame)
    if comparable:
        reference = logits(zeroed(module, plan), frame)
        torch.testing.assert_close(answer, reference, rtol=1e-3, atol=1e-4 * float(reference.abs().max()))
    save(plan, pruned, tmp_path)
    assert torch.equal(logits(load(lambda: architecture(source, side, **arguments), tmp_path), frame), answer)


@pytest.mark.parametrize(
    ("source", "side", "arguments", "comparable"), [row for row in NETWORKS if row.id in {"tiny-resnet", "convnext", "vit-tiny"}]
)
def test_nothing_taken_is_nothing_changed(source, side, arguments, comparable):
    """With a ratio of 0 the network answers with the same bits."""
    module, frame = architecture(source, side, **arguments), example(side)
    assert torch.equal(logits(apply_plan(module, plan_pruning(module, frame, settings(0))), frame), logits(module, frame))


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("timm:test_resnet", {}),
        pytest.param("timm:regnety_004", {}, marks=slow),
        pytest.param("timm:mobilenetv3_small_100", {}, marks=slow),
        pytest.param("timm:densenet121", {}, marks=slow),
        pytest.param("timm:convnext_atto", {}, marks=slow),
        pytest.param("timm:vit_tiny_patch16_224", {**IMG, "depth": 2}, marks=slow),
        pytest.param("timm:swin_tiny_patch4_window7_224", IMG, marks=slow),
    ],
)
def test_a_pruned_network_is_exported(source, arguments, tmp_path):
    """The ONNX graph of a pruned network gives its logits."""
    module, frame = architecture(source, 64, **arguments), example(64)
    pruned = apply_plan(module, plan_pruning(module, frame, settings()))
    program = torch.onnx.export(pruned, (frame,), dynamo=True, opset_version=20, external_data=False, verbose=False)
    program.save(str(tmp_path / "m.onnx"), external_data=False)
    expected = logits(pruned, frame)
    torch.testing.assert_close(
        torch.from_numpy(run_onnx(tmp_path / "m.onnx", frame.numpy())[0]), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
    )


@pytest.mark.parametrize("criterion", ["l1", "taylor"])
@pytest.mark.parametrize("scope", ["isomorphic", "global"])
def test_every_layer_keeps_a_head(criterion, scope):
    """However much goes, each layer keeps a head, the embedding its width, and the network its answer."""
    module, frame = architecture("timm:vit_tiny_patch16_224", 64, **IMG, depth=3), example(64)
    plan = plan_pruning(
        module, frame, settings(1, criterion=criterion, scope=scope, max_ratio=0.99), lambda network: losses(network, side=64)
    )
    pruned = apply_plan(module, plan)
    assert [block.attn.num_heads for block in pruned.blocks] == [1, 1, 1]
    assert [block.mlp.fc1.out_features for block in pruned.blocks] == [16, 16, 16]
    assert pruned.blocks[0].attn.qkv.weight.shape == (3 * 64, 192)
    assert logits(pruned, frame).shape == (1, 3)


def test_the_weakest_head_goes():
    """Of heads with equal weights but one, the one with the smallest goes, with its rows, columns and biases."""
    module, frame = architecture("timm:vit_tiny_patch16_224", 64, **IMG, depth=1), example(64)
    attention = module.blocks[0].attn
    with torch.no_grad():
        attention.qkv.weight.view(3, 3, 64, 192)[:, 1] *= 0.1
    rows = attention.qkv.weight.view(3, 3, 64, 192)[:, [0, 2]].reshape(-1, 192)
    biases = attention.qkv.bias.view(3, 3, 64)[:, [0, 2]].flatten()
    columns = attention.proj.weight.view(192, 3, 64)[:, [0, 2]].reshape(192, -1)
    pruned = apply_plan(module, plan_pruning(module, frame, settings(0.3, criterion="l1"))).blocks[0].attn
    assert torch.equal(pruned.qkv.weight, rows)
    assert torch.equal(pruned.qkv.bias, biases)
    assert torch.equal(pruned.proj.weight, columns)


def test_swin_keeps_the_positions_of_its_heads():
    """The table of relative positions loses the columns of the heads that go."""
    module, frame = architecture("timm:swin_tiny_patch4_window7_224", 64, **IMG, depths=(1, 1), num_heads=(3, 6)), example(64)
    plan = plan_pruning(module, frame, settings(0.5))
    cut = next(cut for cut in plan.cuts if cut.axis == "heads")
    table = module.get_submodule(cut.module).relative_position_bias_table
    assert torch.equal(apply_plan(module, plan).get_submodule(cut.module).relative_position_bias_table, table[:, list(cut.kept)])


def test_transformers_have_no_scales():
    """A transformer is refused for `bn-scale`, with the criteria that work."""
    module = architecture("timm:vit_tiny_patch16_224", 64, **IMG, depth=1)
    with pytest.raises(ModelError, match="bn-scale finds nothing") as caught:
        plan_pruning(module, example(64), settings(criterion="bn-scale"))
    assert "l1, l2, taylor" in caught.value.hint


def test_heads_that_are_tied_stay():
    """Of an attention that normalizes across its heads only hidden units go."""
    module = architecture("timm:vit_tiny_patch16_224", 64, **IMG, depth=1, scale_attn_norm=True)
    assert [structure.kind for structure in find_structures(module, example(64))] == ["hidden units"]


def test_a_network_that_cannot_be_traced_is_refused():
    """ShuffleNet's shuffled channels are not understood; that is one line with a hint, and not a traceback."""
    module = architecture("torchvision:shufflenet_v2_x0_5", 64)
    with pytest.raises(ModelError, match="cannot be traced") as caught:
        plan_pruning(module, example(64), settings())
    assert "\n" not in caught.value.message
    assert "student" in caught.value.hint


def test_every_adapter_keeps_the_contract():
    """Each row of the table is a module with `fits` and `structures`; the first that fits is asked."""
    import importlib

    for path in ADAPTERS.values():
        adapter = importlib.import_module(path)
        assert callable(adapter.fits)
        assert callable(adapter.structures)
    module = architecture("timm:vit_tiny_patch16_224", 64, **IMG, depth=1)
    assert transformer.fits(module)
    assert not transformer.fits(architecture("timm:test_resnet", 64))
