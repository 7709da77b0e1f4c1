"""The map of a token that is read: gradient · features at the first normalization of the last block, however the attention is written; and what is refused."""
# ruff: noqa: TID253 - the passes are written against onnx-ir, the references against torch

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from network_builders import create, input_spec, run_onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator
from qat_builders import calibrated

from edgekit.compiler.explain.find import explain
from edgekit.compiler.load.source import normalize
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.compiler.quantize.qat import export

ROWS, COLUMNS, HEADS, SIZE, OUTPUTS = 2, 3, 2, 4, 3
CHANNELS, PATCHES = HEADS * SIZE, ROWS * COLUMNS
FEATURES = np.random.default_rng(1).normal(size=(1, CHANNELS, ROWS, COLUMNS))


class Block:
    """A list of tokens, one block of a transformer, and a linear layer on a token, node by node.

    `changed` is added to what the first normalization gives, where the reference moves it.
    """

    def __init__(self, extra=1, *, order=("extra", "patches")):
        self.random = np.random.default_rng(2)
        self.nodes, self.arrays, self.tokens = [], {}, extra + PATCHES
        rows = self.add("Reshape", "x", self.whole(1, CHANNELS, PATCHES))
        patches = self.add("Transpose", rows, perm=[0, 2, 1])
        if extra:
            parts = {"extra": self.noise(1, extra, CHANNELS), "patches": patches}
            patches = self.add("Concat", *(parts[name] for name in order), axis=1)
        self.stream = self.add("Add", patches, self.noise(1, self.tokens, CHANNELS))

    def add(self, kind, *inputs, count=1, **attributes):
        names = [f"{kind.lower()}_{len(self.nodes)}_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0] if count == 1 else names

    def constant(self, array):
        self.arrays[f"constant_{len(self.arrays)}"] = np.asarray(array)
        return f"constant_{len(self.arrays) - 1}"

    def noise(self, *shape, scale=1.0):
        return self.constant(scale * self.random.normal(size=shape))

    def whole(self, *numbers):
        return self.constant(np.array(numbers, dtype=np.int64))

    def linear(self, source, taken, given):
        return self.add("Add", self.add("MatMul", source, self.noise(taken, given, scale=taken**-0.5)), self.noise(given))

    def norm(self, source):
        return self.add("LayerNormalization", source, self.noise(CHANNELS), self.noise(CHANNELS), epsilon=1e-6)

    def first_norm(self):
        self.normed = self.norm(self.stream)
        return self.normed

    def fused(self, x):
        """One layer for queries, keys and values, as timm's."""
        parts = self.add("Reshape", self.linear(x, CHANNELS, 3 * CHANNELS), self.whole(1, self.tokens, 3, HEADS, SIZE))
        turned = self.add("Transpose", parts, perm=[2, 0, 3, 1, 4])
        return [self.add("Gather", turned, self.constant(np.array(index, dtype=np.int64)), axis=0) for index in range(3)]

    def turn(self, keys):
        return self.add("Transpose", keys, perm=[0, 1, 3, 2])

    def weigh(self, scores, values):
        return self.add("MatMul", self.add("Softmax", scores, axis=-1), values)

    def joined(self, attended):
        return self.add("Reshape", self.add("Transpose", attended, perm=[0, 2, 1, 3]), self.whole(1, self.tokens, CHANNELS))

    def finish(self, answer, *, scaled=False, pick="gather", token=0):
        """Projection, both residual sums, a perceptron, the last normalization, the token, and the logits."""

        def join(stream, branch):
            return self.add("Add", stream, self.add("Mul", branch, self.noise(CHANNELS)) if scaled else branch)

        stream = join(self.stream, self.linear(answer, CHANNELS, CHANNELS))
        inner = self.add("Tanh", self.linear(self.norm(stream), CHANNELS, 2 * CHANNELS))
        self.read(self.norm(join(stream, self.linear(inner, 2 * CHANNELS, CHANNELS))), pick=pick, token=token)
        return self

    def read(self, tokens, *, pick="gather", token=0):
        if pick == "gather":
            chosen = self.add("Gather", tokens, self.constant(np.array(token, dtype=np.int64)), axis=1)
        elif pick == "gather-kept":
            chosen = self.add("Flatten", self.add("Gather", tokens, self.whole(token - self.tokens), axis=1))
        else:
            chosen = self.add("Flatten", self.add("Slice", tokens, self.whole(token), self.whole(token + 1), self.whole(1)))
        self.nodes.append(helper.make_node("Gemm", [chosen, self.noise(CHANNELS, OUTPUTS), self.noise(OUTPUTS)], ["y"], name="last"))

    def proto(self, element=TensorProto.FLOAT, *, changed=False):
        kind = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}[element]
        nodes, inputs = list(self.nodes), [helper.make_tensor_value_info("x", element, FEATURES.shape)]
        if changed:
            place = next(index for index, node in enumerate(nodes) if node.output[0] == self.normed)
            nodes = [helper.make_node(n.op_type, [f"{i}+" if i == self.normed else i for i in n.input], n.output, n.name) for n in nodes]
            for new, old in zip(nodes, self.nodes, strict=True):
                new.attribute.extend(old.attribute)
            nodes.insert(place + 1, helper.make_node("Add", [self.normed, "changed"], [f"{self.normed}+"]))
            inputs.append(helper.make_tensor_value_info("changed", element, (1, self.tokens, CHANNELS)))
        arrays = [
            numpy_helper.from_array(array.astype(kind) if array.dtype.kind == "f" else array, name) for name, array in self.arrays.items()
        ]
        outputs = [helper.make_tensor_value_info("y", element, (1, OUTPUTS)), *([helper.make_tensor_value_info(self.normed, element, (1, self.tokens, CHANNELS))] if changed else [])]  # fmt: skip
        graph = helper.make_graph(nodes, "block", inputs, outputs, arrays)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def by_numbers(self):
        """Gradient · features of every logit at the first normalization, by central differences in float64, of the patches, times their number."""
        run = ReferenceEvaluator(self.proto(TensorProto.DOUBLE, changed=True))
        still = np.zeros((1, self.tokens, CHANNELS))
        features = run.run(None, {"x": FEATURES, "changed": still})[1]
        slope = np.zeros((OUTPUTS, self.tokens, CHANNELS))
        for place in np.ndindex(slope.shape[1:]):
            step = still.copy()
            step[(0, *place)] = 1e-5
            slope[(slice(None), *place)] = (run.run(None, {"x": FEATURES, "changed": step})[0] - run.run(None, {"x": FEATURES, "changed": -step})[0])[0] / 2e-5  # fmt: skip
        return (slope * features).sum(axis=2)[:, -PATCHES:].reshape(OUTPUTS, ROWS, COLUMNS) * PATCHES


def plain(extra=1, **finish):
    block = Block(extra)
    queries, keys, values = block.fused(block.first_norm())
    scores = block.add("Mul", block.add("MatMul", queries, block.turn(keys)), block.constant(np.array(SIZE**-0.5)))
    return block.finish(block.joined(block.weigh(scores, values)), **finish)


def scaled_before():
    """As torch's decomposition of scaled_dot_product_attention: the square root of the scale on both."""
    block = Block()
    queries, keys, values = block.fused(block.first_norm())
    root = block.constant(np.array(SIZE**-0.25))
    scores = block.add("MatMul", block.add("Mul", queries, root), block.add("Mul", block.turn(keys), root))
    return block.finish(block.joined(block.weigh(scores, values)))


def with_bias(shape, *, first=False):
    """A relative-position bias on the scores, before or behind the scale."""
    block = Block()
    queries, keys, values = block.fused(block.first_norm())
    scores, bias, scale = block.add("MatMul", queries, block.turn(keys)), block.noise(*shape), block.constant(np.array(SIZE**0.5))
    steps = [("Add", bias), ("Div", scale)] if first else [("Div", scale), ("Add", bias)]
    for kind, constant in steps:
        scores = block.add(kind, scores, constant)
    return block.finish(block.joined(block.weigh(scores, values)))


def split():
    """Queries, keys and values cut out of one value."""
    block = Block()
    parts = block.add("Split", block.linear(block.first_norm(), CHANNELS, 3 * CHANNELS), count=3, axis=-1, num_outputs=3)
    sizes = block.whole(1, block.tokens, HEADS, SIZE)
    queries, keys, values = (block.add("Transpose", block.add("Reshape", part, sizes), perm=[0, 2, 1, 3]) for part in parts)
    return block.finish(block.joined(block.weigh(block.add("MatMul", queries, block.turn(keys)), values)))


def separate():
    """A layer each, keys without a bias (as BEiT's), and turned in one go."""
    block = Block()
    x, sizes = block.first_norm(), block.whole(1, block.tokens, HEADS, SIZE)
    layers = [block.linear(x, CHANNELS, CHANNELS), block.add("MatMul", x, block.noise(CHANNELS, CHANNELS)), block.linear(x, CHANNELS, CHANNELS)]  # fmt: skip
    queries, keys, values = (
        block.add("Transpose", block.add("Reshape", layer, sizes), perm=perm)
        for layer, perm in zip(layers, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scores = block.add("Mul", block.add("MatMul", queries, keys), block.constant(np.array(SIZE**-0.5)))
    return block.finish(block.joined(block.weigh(scores, values)))


def sequence_first():
    """As torch.nn.MultiheadAttention: (tokens, 1, channels), heads without a leading axis, and Gemm on the tokens."""
    block = Block()
    turned = block.add("Transpose", block.first_norm(), perm=[1, 0, 2])
    layer = block.linear(turned, CHANNELS, 3 * CHANNELS)
    parts = block.add("Transpose", block.add("Unsqueeze", block.add("Reshape", layer, block.whole(block.tokens, 1, 3, CHANNELS)), block.whole(0)), perm=[3, 1, 2, 0, 4])  # fmt: skip
    rows = block.add("Squeeze", parts, block.whole(-2))
    queries, keys, values = (
        block.add("Transpose", block.add("Reshape", block.add("Gather", rows, block.constant(np.array(index, dtype=np.int64)), axis=0), block.whole(block.tokens, HEADS, SIZE)), perm=[1, 0, 2])
        for index in range(3)
    )  # fmt: skip
    weights = block.add("Softmax", block.add("MatMul", queries, block.add("Transpose", keys, perm=[0, 2, 1])), axis=-1)
    attended = block.add("Transpose", block.add("MatMul", weights, values), perm=[1, 0, 2])
    flat = block.add("Reshape", attended, block.whole(block.tokens, CHANNELS))
    projected = block.add("Gemm", flat, block.noise(CHANNELS, CHANNELS), block.noise(CHANNELS), transB=1)
    stacked = block.add("Reshape", projected, block.whole(block.tokens, 1, CHANNELS))
    return block.finish(block.add("Transpose", stacked, perm=[1, 0, 2]))


def two_dimensional():
    """Tokens without a leading axis, and Gemm for every layer."""
    block = Block()
    flat = block.add("Reshape", block.first_norm(), block.whole(block.tokens, CHANNELS))
    layer = block.add("Gemm", flat, block.noise(CHANNELS, 3 * CHANNELS, scale=0.4), block.noise(3 * CHANNELS))
    parts = block.add("Transpose", block.add("Reshape", layer, block.whole(block.tokens, 3, HEADS, SIZE)), perm=[1, 2, 0, 3])
    queries, keys, values = (block.add("Gather", parts, block.constant(np.array(index, dtype=np.int64)), axis=0) for index in range(3))
    weights = block.add("Softmax", block.add("MatMul", queries, block.add("Transpose", keys, perm=[0, 2, 1])), axis=-1)
    attended = block.add("Transpose", block.add("MatMul", weights, values), perm=[1, 0, 2])
    return block.finish(block.add("Reshape", attended, block.whole(1, block.tokens, CHANNELS)))


def one_head():
    """A single head without an axis for heads."""
    block = Block()
    x = block.first_norm()
    queries, keys, values = (block.linear(x, CHANNELS, CHANNELS) for _ in range(3))
    weights = block.add("Softmax", block.add("MatMul", queries, block.add("Transpose", keys, perm=[0, 2, 1])), axis=-1)
    return block.finish(block.add("MatMul", weights, values))


def two_tokens():
    """As DeiT with its distillation token: the mean of two heads, on two tokens."""
    block = Block(2)
    queries, keys, values = block.fused(block.first_norm())
    answer = block.joined(block.weigh(block.add("MatMul", queries, block.turn(keys)), values))
    tokens = block.norm(block.add("Add", block.stream, block.linear(answer, CHANNELS, CHANNELS)))
    logits = []
    for token in range(2):
        chosen = block.add("Gather", tokens, block.constant(np.array(token, dtype=np.int64)), axis=1)
        logits.append(block.add("Gemm", chosen, block.noise(CHANNELS, OUTPUTS), block.noise(OUTPUTS)))
    block.nodes.append(helper.make_node("Div", [block.add("Add", *logits), block.constant(np.array(2.0))], ["y"], name="last"))
    return block


BLOCKS = {
    "class-token-first": plain,
    "four-extra-tokens": lambda: plain(4),
    "reads-the-second-token": lambda: plain(2, token=1),
    "sliced-token": lambda: plain(pick="slice"),
    "token-by-a-negative-index": lambda: plain(pick="gather-kept"),
    "layer-scale": lambda: plain(scaled=True),
    "scale-on-both": scaled_before,
    "bias-on-the-scores": lambda: with_bias((1, HEADS, 1 + PATCHES, 1 + PATCHES)),
    "bias-before-the-scale": lambda: with_bias((HEADS, 1 + PATCHES, 1 + PATCHES), first=True),
    "bias-for-every-row": lambda: with_bias((1 + PATCHES,)),
    "split": split,
    "separate-layers": separate,
    "sequence-first": sequence_first,
    "two-dimensional": two_dimensional,
    "one-head": one_head,
    "two-tokens": two_tokens,
}


def inferred(block):
    return shape_inference.infer_shapes(block.proto(), strict_mode=True, data_prop=True)


@pytest.mark.parametrize("build", BLOCKS.values(), ids=BLOCKS)
def test_the_map_is_gradient_times_features_at_the_first_normalization(build):
    """By differences of the block as it was, for every logit; logits are what they were, and the offset is what the map leaves out."""
    block = build()
    proto = inferred(block)
    model = ir.from_proto(proto)
    found = explain(model)
    assert not isinstance(found, str), found
    assert (found.kind, found.rows, found.columns, found.bias) == ("attention", ROWS, COLUMNS, ())
    frame = FEATURES.astype(np.float32)
    logits, maps, offset = run_onnx(ir.to_proto(model).SerializeToString(), frame)
    expected = block.by_numbers()
    assert maps[0] == pytest.approx(expected, rel=1e-4, abs=1e-4 * np.abs(expected).max())
    assert logits == pytest.approx(run_onnx(proto.SerializeToString(), frame)[0], rel=1e-5, abs=1e-5)
    assert maps.mean(axis=(2, 3)) + offset == pytest.approx(logits, abs=1e-4)


def test_a_map_of_another_attention_does_not_add_up():
    """The offset holds the difference of the row that was computed again, so the device's check sees it."""
    block = plain()
    model = ir.from_proto(inferred(block))
    explain(model)
    scale = next(node for node in model.graph if node.name.startswith("mul_")).inputs[1]
    scale.const_value = ir.tensor(np.array(1.5, dtype=np.float32), name=scale.name)
    logits, maps, offset = run_onnx(ir.to_proto(model).SerializeToString(), FEATURES.astype(np.float32))
    assert np.abs(maps.mean(axis=(2, 3)) + offset - logits).max() > 1e-2


def test_the_networks_own_attention_is_read_behind_the_heads_only():
    """Otherwise an engine could not fuse it: nothing of the map reads scores, weights, or what the heads gave."""
    model = ir.from_proto(inferred(plain()))
    explain(model)
    inner = {"Softmax", "MatMul"}
    softmax = next(node for node in model.graph if node.op_type == "Softmax" and not node.name.startswith("cam_head/"))
    scores = softmax.inputs[0]
    attended = next(use.node for use in softmax.outputs[0].uses())
    assert attended.op_type in inner
    for value in (scores, softmax.outputs[0], attended.outputs[0]):
        assert not [use.node.name for use in value.uses() if use.node.name.startswith("cam_head/")]


def rotated():
    """Keys turned by an angle of their place (Su et al. 2021)."""
    block = Block()
    queries, keys, values = block.fused(block.first_norm())
    turned = block.add("Concat", block.add("Slice", keys, block.whole(2), block.whole(4), block.whole(3)), block.add("Slice", keys, block.whole(0), block.whole(2), block.whole(3)), axis=3)  # fmt: skip
    keys = block.add("Add", block.add("Mul", keys, block.noise(block.tokens, SIZE)), block.add("Mul", turned, block.noise(block.tokens, SIZE)))  # fmt: skip
    return block.finish(block.joined(block.weigh(block.add("MatMul", queries, block.turn(keys)), values)))


def moving_scores(kind):
    block = Block()
    queries, keys, values = block.fused(block.first_norm())
    scores = block.add("MatMul", queries, block.turn(keys))
    scores = block.add(kind, scores, block.add("MatMul", keys, block.turn(queries)))
    return block.finish(block.joined(block.weigh(scores, values)))


def scale_a_head():
    block = Block()
    queries, keys, values = block.fused(block.first_norm())
    scores = block.add("Mul", block.add("MatMul", queries, block.turn(keys)), block.noise(HEADS, 1, 1))
    return block.finish(block.joined(block.weigh(scores, values)))


def other_softmax():
    """Over queries."""
    block = Block()
    queries, keys, values = block.fused(block.first_norm())
    weights = block.add("Softmax", block.add("MatMul", queries, block.turn(keys)), axis=2)
    return block.finish(block.joined(block.add("MatMul", weights, values)))


def no_class_token():
    """The token that is read is a patch: through its own query it gives more than its key and value."""
    return plain(0)


def class_token_last():
    block = Block(order=("patches", "extra"))
    queries, keys, values = block.fused(block.first_norm())
    return block.finish(block.joined(block.weigh(block.add("MatMul", queries, block.turn(keys)), values)), token=PATCHES)


def fewer_keys():
    """Keys and values of every other token, as where a network pools them."""
    block = Block()
    queries, keys, values = block.fused(block.first_norm())
    starts, ends, axes, steps = (block.whole(number) for number in (0, block.tokens, 2, 2))
    keys, values = (block.add("Slice", part, starts, ends, axes, steps) for part in (keys, values))
    return block.finish(block.joined(block.weigh(block.add("MatMul", queries, block.turn(keys)), values)))


REFUSED = {
    "rotated-keys": (rotated, "keys and values are not linear functions of one value"),
    "sum-of-two-scores": (lambda: moving_scores("Add"), "scores have a part that depends on the frame"),
    "product-of-two-scores": (lambda: moving_scores("Mul"), "scores have a part that depends on the frame"),
    "difference-of-two-scores": (lambda: moving_scores("Sub"), "scores are not queries times keys"),
    "scale-a-head": (scale_a_head, "scores have a scale of their own each"),
    "softmax-over-queries": (other_softmax, "softmax is not over its keys"),
    "no-class-token": (no_class_token, "the token that the head reads is a patch"),
    "class-token-last": (class_token_last, "no features above it tell their rows and columns"),
    "fewer-keys": (fewer_keys, "keys and values of other tokens than it answers"),
}


@pytest.mark.parametrize(("build", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_attention_of_another_form_is_refused(build, reason):
    """With what was found, a way out, and the graph as it was."""
    model = ir.from_proto(inferred(build()))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    found = explain(model)
    assert isinstance(found, str)
    assert reason in found
    assert 'map = "masking"' in found
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


class _Torchvision(torch.nn.Module):
    """torchvision's ViT in small."""

    def __init__(self):
        super().__init__()
        from torchvision.models import VisionTransformer

        self.net = VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=OUTPUTS)

    def forward(self, x):
        return self.net(x)


NETWORKS = {
    "timm": (lambda: create("timm:test_vit", img_size=32, depth=2), "blocks.{}.norm1"),
    "timm-distilled": (lambda: create("timm:deit_tiny_distilled_patch16_224", depth=2, embed_dim=24, num_heads=3, img_size=32), "blocks.{}.norm1"),
    "timm-layer-scale": (lambda: create("timm:test_vit", img_size=32, depth=2, init_values=0.3), "blocks.{}.norm1"),
    "torchvision": (_Torchvision, "net.encoder.layers.encoder_layer_{}.ln_1"),
}  # fmt: skip


def randomized(build):
    """No parameter is left constant: with zeros in the head every map is 0."""
    torch.manual_seed(5)
    net = build().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def last_block(net, pattern):
    names = dict(net.named_modules())
    return names[pattern.format(max(index for index in range(32) if pattern.format(index) in names))]


def by_autograd(net, features, logits, count):
    """Gradient · features of every logit in the network's own precision: (outputs, patches), times their number."""
    rows = [torch.autograd.grad(logits[0, index], features, retain_graph=True)[0] * features for index in range(logits.shape[1])]
    return torch.stack([row.detach()[0, -count:].sum(dim=1) for row in rows]).numpy() * count


@pytest.mark.parametrize(("build", "pattern"), NETWORKS.values(), ids=NETWORKS)
def test_the_map_of_a_transformer_is_autograds(build, pattern, tmp_path):
    """Within 1e-4 of the largest value, in float64."""
    spec = input_spec()
    net = randomized(build)
    TorchModel(net, spec, labels=OUTPUTS, binary=False).export(tmp_path / "net.onnx")
    model = ir.load(tmp_path / "net.onnx")
    found = explain(model)
    assert not isinstance(found, str), found
    planes = torch.randn(1, 3, *spec.size, generator=torch.Generator().manual_seed(0))
    logits, maps, offset = run_onnx(ir.to_proto(model).SerializeToString(), planes.numpy())
    kept = []
    net.double()
    last_block(net, pattern).register_forward_hook(lambda _, __, given: kept.append(given))
    own = net(planes.double())
    expected = by_autograd(net, kept[-1], own, found.rows * found.columns).reshape(maps[0].shape)
    assert np.abs(maps[0] - expected).max() <= 1e-4 * np.abs(expected).max()
    assert logits == pytest.approx(own.detach().numpy(), abs=1e-4)
    assert maps.mean(axis=(2, 3)) + offset == pytest.approx(logits, abs=1e-5)


class StraightThrough(torch.fx.Interpreter):
    """Runs the trained graph; a rounding of a value hands gradients on as they are. Keeps what the last fused layer of queries, keys and values reads."""

    features = None

    def call_module(self, target, args, kwargs):
        rounded = super().call_module(target, args, kwargs).detach()
        return args[0] + (rounded - args[0]).detach()

    def run_node(self, node):
        if node.target is torch.ops.aten.linear.default and "qkv" in str(node.args[1]):
            self.features = self.env[node.args[0]].detach().requires_grad_()
            self.env[node.args[0]] = self.features
        return super().run_node(node)


def straight_through(network, planes, count):
    run = StraightThrough(network.graph)
    logits, *_ = run.run(torch.from_numpy(planes))
    return by_autograd(network, run.features, logits, count)


def test_a_network_that_was_trained_with_its_roundings_keeps_its_map(tmp_path):
    """Roundings are passed as if they were none; the features are what the last attention reads, rounded."""
    network, taken, tensors = calibrated(randomized(NETWORKS["timm"][0]), input_spec(color="rgb"), count=8)
    export.export(network, (taken.channels, *taken.size), tmp_path / "trained.onnx")
    model = ir.load(tmp_path / "trained.onnx")
    found = explain(model)
    assert not isinstance(found, str), found
    planes = normalize(tensors[:1], taken)
    logits, maps, offset = run_onnx(ir.to_proto(model).SerializeToString(), planes)
    assert maps.mean(axis=(2, 3)) + offset == pytest.approx(logits, abs=1e-5)
    expected = straight_through(network, planes, found.rows * found.columns).reshape(maps[0].shape)
    assert np.abs(maps[0] - expected).max() <= 1e-3 * np.abs(expected).max()
