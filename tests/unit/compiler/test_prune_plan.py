"""Planning and cutting, on a small network that has every coupling."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prune_builders import awake, couplings, example, logits, losses, parameters, zeroed
from torch import nn

from edgekit.compiler.prune import adapters, apply
from edgekit.compiler.prune.channel_plan import ChannelPlan, Cut, PruneSettings, Width, compose
from edgekit.compiler.prune.plan import Step, apply_plan, load, plan_pruning, read, save
from edgekit.errors import ModelError, OutputError
from edgekit.schema.decode import decode, encode


def settings(ratio=0.4, **changes):
    return PruneSettings(**{"criterion": "l2", "ratio": ratio, "round_to": 8, **changes})


def after(plan):
    return {width.structure: width.after * width.channels for width in plan.widths}


@pytest.mark.parametrize("scope", ["isomorphic", "global"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "bn-scale"])
def test_what_is_left_computes_what_is_left(criterion, scope):
    """The pruned network answers as the unpruned one does when nothing reads what went, and is smaller."""
    module, frame = couplings(), example()
    plan = plan_pruning(module, frame, settings(criterion=criterion, scope=scope), losses)
    pruned = apply_plan(module, plan)
    assert parameters(pruned) < 0.75 * parameters(module)
    torch.testing.assert_close(logits(pruned, frame), logits(zeroed(module, plan), frame), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(pruned, frame), logits(module, frame), rtol=1e-2)


def test_every_coupling_is_found():
    """Residual sum, depthwise and grouped convolutions, concatenation and flattened map are all pruned, in multiples of the rounding."""
    plan = plan_pruning(couplings(), example(), settings(1, max_ratio=0.5))
    # Of 40 hidden units at least 20 stay, and so 24; of 8 squeezed channels, 8.
    halves = {"stem.0": 16, "left.0": 24, "squeeze": 8, "after.0": 16, "merge.0": 16, "hidden": 24}
    assert {name: value for name, value in after(plan).items() if name in halves} == halves
    assert len(plan.widths) == len(halves) + 1  # and the grouped convolution with the one before it
    assert {"depthwise.0", "right.0", "excite", "act"} <= {cut.module for cut in plan.cuts}
    pruned = apply_plan(couplings(), plan)
    assert (pruned.grouped[0].groups, pruned.grouped[0].in_channels, pruned.grouped[0].weight.shape[1]) == (4, 32, 8)
    assert pruned.hidden.in_features == 16 * 16


def chain(*parts):
    """Convolutions in a row with a pooled linear head."""
    torch.manual_seed(0)
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(parts[-1].out_channels, 3)).eval()


def test_two_groups_stay():
    """However much goes, a depthwise or grouped convolution keeps two groups, since with one it would be another kind of layer."""
    for groups in (32, 8):
        network = chain(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, groups=groups), nn.Conv2d(32, 32, 1))
        pruned = apply_plan(network, plan_pruning(network, example(), settings(1, max_ratio=0.99, round_to=1)))
        assert pruned[1].groups == 2


@pytest.mark.parametrize(
    "grouped",
    [
        (nn.Conv2d(32, 32, 3, groups=8), nn.Conv2d(32, 32, 3, groups=4)),
        (nn.Conv2d(32, 16, 3, groups=16), nn.Conv2d(16, 32, 1)),
    ],
    ids=["two divisions of the same channels", "two channels into one"],
)
def test_groups_that_disagree_stay(grouped):
    """Channels that convolutions divide into groups in different ways stay; the rest of the network is pruned."""
    network, frame = chain(nn.Conv2d(3, 32, 3), *grouped, nn.Conv2d(32, 32, 1)), example()
    plan = plan_pruning(network, frame, settings(0.5))
    pruned = apply_plan(network, plan)
    assert [part.weight.shape for part in pruned[1:2]] == [part.weight.shape for part in network[1:2]]
    assert pruned[-1].in_features == 16
    torch.testing.assert_close(logits(pruned, frame), logits(zeroed(network, plan), frame), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [nn.Conv2d(3, 48, 3, groups=3), nn.Conv2d(3, 3, 3, groups=3)], ids=["grouped", "depthwise"])
def test_channels_of_the_frame_stay(first):
    """A grouped or depthwise convolution that takes the frame itself keeps its groups; the rest of the network is pruned."""
    network, frame = chain(first, nn.Conv2d(first.out_channels, 32, 1), nn.Conv2d(32, 32, 1)), example()
    plan = plan_pruning(network, frame, settings(0.5, round_to=1))
    assert "0" not in {cut.module for cut in plan.cuts}
    assert plan.removed_share == pytest.approx(0.5)


def test_a_share_of_nothing_changes_no_bit():
    """With a ratio of 0 the plan is empty, and the network answers with the same bits."""
    module, frame = couplings(), example()
    plan = plan_pruning(module, frame, settings(0))
    assert plan.cuts == ()
    assert plan.removed_share == 0
    assert torch.equal(logits(apply_plan(module, plan), frame), logits(module, frame))


def test_the_network_that_is_given_stays():
    """Planning and cutting leave weights, modes, gradients and PyTorch's random numbers as they were."""
    module, frame = couplings().train(), example()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.random.get_rng_state()
    plan = plan_pruning(module, frame, settings(criterion="taylor"), lambda network: (loss + torch.rand(()) for loss in losses(network)))
    apply_plan(module, plan)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(part.training for part in module.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_plan_twice():
    """Two runs give the same plan and the same bits, whatever the state of the random numbers."""
    frame = example()
    plans = []
    for seed in (1, 2):
        module = couplings()
        torch.manual_seed(seed)
        plans.append(plan_pruning(module, frame, settings(criterion="taylor"), losses))
    assert plans[0] == plans[1]
    assert torch.equal(logits(apply_plan(couplings(), plans[0]), frame), logits(apply_plan(couplings(), plans[1]), frame))


def test_steps_follow_each_other():
    """Two steps, with new weights between them, are one plan relative to the unpruned network, and the second's share counts from there."""
    module, frame = couplings(), example()
    first = plan_pruning(module, frame, settings(0.25))
    between = awake(apply_plan(module, first), seed=5)
    second = plan_pruning(between, frame, settings(0.5), step=Step(before=first))
    final, both = apply_plan(between, second), compose(first, second)
    assert both.removed_share == pytest.approx(plan_pruning(module, frame, settings(0.5)).removed_share, abs=0.08)
    rebuilt = apply_plan(module, both)
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == {
        name: tensor.shape for name, tensor in final.state_dict().items()
    }
    # The same rows: the stem's weights were not changed between the steps.
    assert torch.equal(rebuilt.stem[0].weight, final.stem[0].weight)


def test_steps_keep_the_limit():
    """`max_ratio` is a share of the unpruned network's channels in every step."""
    module, frame = couplings(), example()
    first = plan_pruning(module, frame, settings(0.4, max_ratio=0.5))
    second = plan_pruning(apply_plan(module, first), frame, settings(1, max_ratio=0.5), step=Step(before=first))
    assert min(width.after / width.before for width in compose(first, second).widths) >= 0.5


def test_measured_widths_are_kept():
    """With the widths of a measured plan and a ratio of 1 the shapes are that plan's, and the choice is new."""
    module, frame = couplings(), example()
    measured = plan_pruning(module, frame, settings(0.5))
    first = plan_pruning(module, frame, settings(0.25), step=Step(widths=measured))
    between = awake(apply_plan(module, first), seed=9)
    last = compose(first, plan_pruning(between, frame, settings(1, criterion="bn-scale"), step=Step(before=first, widths=measured)))
    judged = {"stem.0", "left.0", "before.0", "after.0"}  # those with batch normalization
    assert {name: value for name, value in after(last).items() if name in judged} == {
        name: value for name, value in after(measured).items() if name in judged
    }
    assert last.cuts != measured.cuts


def test_steps_that_do_not_follow_are_refused():
    """A second step made from another network than the first one leaves cannot be composed."""
    plan = plan_pruning(couplings(), example(), settings(0.4))
    with pytest.raises(ModelError, match="do not follow each other"):
        compose(plan, plan)


def test_the_saved_network_is_rebuilt_bit_for_bit(tmp_path):
    """Plan and weights rebuild the network from an architecture with other weights; a second step is written as one plan."""
    module, frame = couplings(), example()
    first = plan_pruning(module, frame, settings(0.25))
    between = awake(apply_plan(module, first), seed=3)
    save(first, between, tmp_path / "first")
    assert torch.equal(logits(load(lambda: couplings(8), tmp_path / "first"), frame), logits(between, frame))
    second = plan_pruning(between, frame, settings(0.5), step=Step(before=read(tmp_path / "first")))
    final = awake(apply_plan(between, second), seed=4)
    save(second, final, tmp_path / "second", base=tmp_path / "first")
    assert torch.equal(logits(load(lambda: couplings(8), tmp_path / "second"), frame), logits(final, frame))
    assert read(tmp_path / "second") == compose(first, second)
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == ["plan.json", "weights.safetensors"]


def test_a_base_without_a_plan_is_unpruned(tmp_path):
    """A folder that holds only weights adds nothing to the plan."""
    module = couplings()
    plan = plan_pruning(module, example(), settings())
    save(plan, apply_plan(module, plan), tmp_path, base=tmp_path / "weights-only")
    assert read(tmp_path) == plan


@given(st.data())
def test_a_plan_survives_json(data):
    """Encoding and strict decoding give the same plan."""
    sizes = data.draw(st.lists(st.integers(1, 30), max_size=4))
    cuts = tuple(
        Cut(module=f"m{number}", axis="outputs", size=size, kept=tuple(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))))
        for number, size in enumerate(sizes)
    )
    widths = tuple(Width(structure=cut.module, kind="k", channels=1, before=cut.size, after=len(cut.kept)) for cut in cuts)
    plan = ChannelPlan(settings=settings(0.3), widths=widths, cuts=cuts)
    assert decode(ChannelPlan, json.loads(json.dumps(encode(plan))), where="plan", error=ModelError) == plan


CUT = {"module": "stem.0", "axis": "outputs", "size": 32, "kept": [0, 1]}
FAULTS = {
    "not ascending": {"kept": [1, 0]},
    "twice the same": {"kept": [1, 1]},
    "nothing left": {"kept": []},
    "out of range": {"kept": [0, 32]},
    "below zero": {"kept": [-1, 0]},
    "an axis that does not exist": {"axis": "diagonal"},
    "an unknown key": {"call": "os.system"},
    "truth values": {"kept": [True]},
    "a module that does not exist": {"module": "stern.0"},
    "an axis that the module has not": {"axis": "heads"},
    "a module that cannot be cut": {"module": "pool", "axis": "channels", "size": 2},
    "the container": {"module": "", "axis": "outputs"},
    "another size": {"size": 64},
    "outputs alone": {},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plan_of_another_network_is_refused(fault, tmp_path):
    """A damaged, forged or foreign plan is a ModelError, and no network comes of it."""
    module = couplings()
    save(plan_pruning(module, example(), settings(0)), module, tmp_path)
    table = json.loads((tmp_path / "plan.json").read_text())
    table["cuts"] = [{**CUT, **FAULTS[fault]}]
    (tmp_path / "plan.json").write_text(json.dumps(table))
    with pytest.raises(ModelError):
        load(couplings, tmp_path)


def test_a_plan_for_other_sizes_cuts_nothing():
    """A plan whose module has another size is refused before anything is cut, with what the module has."""
    cut = Cut(module="stem.0", axis="outputs", size=64, kept=(0, 1))
    with pytest.raises(ModelError, match=r"expects 64 outputs in stem\.0, and the architecture has 32"):
        apply_plan(couplings(), ChannelPlan(settings=settings(), widths=(), cuts=(cut,)))


def test_a_huge_plan_is_not_read(tmp_path, monkeypatch):
    """A file larger than any plan is refused before it is parsed."""
    (tmp_path / "plan.json").write_text("[" * 100)
    monkeypatch.setattr("edgekit.compiler.prune.storage.MAX_PLAN_BYTES", 99)
    with pytest.raises(ModelError, match="larger than"):
        read(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    """A file in the place of the folder is an OutputError."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        save(ChannelPlan(settings=settings(), widths=(), cuts=()), couplings(), tmp_path / "file")


@pytest.mark.parametrize(
    "damage", ["missing plan", "missing weights", "no JSON", "deep JSON", "cut weights", "weights of another", "a second format"]
)
def test_damaged_files_are_refused(damage, tmp_path):
    """A missing or damaged file is a ModelError that names it."""
    module = couplings()
    plan = plan_pruning(module, example(), settings())
    save(plan, apply_plan(module, plan), tmp_path)
    table, weights = tmp_path / "plan.json", tmp_path / "weights.safetensors"
    if damage == "missing plan":
        table.unlink()
    elif damage == "missing weights":
        weights.unlink()
    elif damage == "no JSON":
        table.write_bytes(b"\x80\x04")
    elif damage == "deep JSON":
        table.write_text("[" * 100_000)
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "a second format":
        table.write_text(table.read_text().replace('"format_version":1', '"format_version":2'))
    else:
        save(plan, module, tmp_path)
    with pytest.raises(ModelError):
        load(couplings, tmp_path)


class Broken(nn.Module):
    """A network that a fault is planted in."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.first, self.second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = self.second(self.first(x).relu())
        if self.fault == "fixed width":
            x = x.reshape(1, 32, -1).mean(2)
            return self.head(x)
        x = x.mean((2, 3))
        if self.fault == "fails":
            raise RuntimeError("no\nsuch\nluck")
        if self.fault == "a pair":
            return self.head(x), x
        return self.head(x) * (float("nan") if self.fault == "NaN" else 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("fails", "fails on the example frame: RuntimeError: no$"),
        ("a pair", "one vector of logits"),
        ("NaN", "NaN"),
        ("fixed width", "after pruning"),
    ],
)
def test_a_network_that_cannot_be_pruned_is_refused(fault, said):
    """A network that fails, answers with something else, or computes with a number of channels of its own is refused in one line with a hint."""
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=said) as caught:
        plan_pruning(Broken(fault), example(), settings())
    assert "\n" not in caught.value.message
    assert caught.value.hint


class Joined(nn.Module):
    """A concatenation that is flattened with all its positions."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 32, 8, 8), nn.Conv2d(3, 32, 8, 8), nn.Linear(64 * 16, 3)

    def forward(self, x):
        return self.head(torch.cat([self.left(x), self.right(x)], 1).flatten(1))


def test_a_network_that_is_traced_wrongly_is_refused():
    """Torch-Pruning does not find the second half of a flattened concatenation; that is refused instead of half pruned."""
    with pytest.raises(ModelError, match="after pruning, the network fails"):
        plan_pruning(Joined(), example(), settings())


def test_a_network_with_nothing_to_take_is_refused():
    """A single linear layer makes the answer itself."""
    with pytest.raises(ModelError, match="nothing can be taken out") as caught:
        plan_pruning(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), example(), settings())
    assert "student" in caught.value.hint


def test_a_rounding_that_leaves_no_room_is_refused():
    """Layers narrower than the rounding cannot lose anything, and the hint says what to lower."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    with pytest.raises(ModelError, match="in steps of 16 channels") as caught:
        plan_pruning(network, example(), settings(round_to=16))
    assert "round_to" in caught.value.hint
    assert after(plan_pruning(network, example(), settings(0.5, round_to=4))) == {"0": 4}


@pytest.mark.parametrize("wrong", ["shifted inputs", "one input"])
def test_a_wrong_index_is_noticed(wrong, monkeypatch):
    """A plan whose shapes fit while a layer reads the wrong channels is refused."""
    found = adapters.find_structures

    def mistaken(module, frame):
        structures = found(module, frame)
        for number, structure in enumerate(structures):
            for place, member in enumerate(structure.members):
                if member.axis == "inputs" and member.module == "after.0":
                    indices = list(member.indices)
                    indices = indices[1:] + indices[:1] if wrong == "shifted inputs" else [indices[-1], *indices[1:-1], indices[0]]
                    members = [*structure.members]
                    members[place] = dataclasses.replace(member, indices=tuple(indices))
                    structures[number] = dataclasses.replace(structure, members=tuple(members))
        return structures

    monkeypatch.setattr("edgekit.compiler.prune.plan.find_structures", mistaken)
    with pytest.raises(ModelError, match="not what is left of the unpruned one"):
        plan_pruning(couplings(), example(), settings(0.5))


def test_a_wrong_answer_shape_is_noticed():
    """A cut of the network's own answer is refused."""
    module = couplings()
    plan = ChannelPlan(settings=settings(), widths=(), cuts=(Cut(module="head", axis="outputs", size=3, kept=(0, 1)),))
    with pytest.raises(ModelError, match="2 logits instead of 3"):
        apply.check_pruned(module, apply_plan(module, plan), plan, example())


@pytest.mark.parametrize(
    "wrong", [{"ratio": -0.1}, {"ratio": 1.1}, {"max_ratio": 1.0}, {"max_ratio": 0.0}, {"round_to": 0}, {"round_to": 257}, {"seed": -1}]
)
def test_settings_have_limits(wrong):
    """A setting out of its range is refused."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        settings(**wrong)
