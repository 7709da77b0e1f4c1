"""The parts of the loss: their values by hand, what they are zero for, and that a batch's loss is the mean of its halves'."""
# ruff: noqa: TID253 - the tests of what uses torch use torch

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from training_builders import BINARY, MULTICLASS, MULTILABEL, settings

from edgekit.compiler.distill.answer import Answer
from edgekit.compiler.distill.losses import Objective, Scales, class_weights, combine, feature_loss, floored, hard_loss, map_loss, soft_loss


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answer(frames=8, outputs=3, *, seed=0, size=4, maps=True, channels=5):
    return Answer(
        values(frames, outputs, seed=seed),
        values(frames, outputs, size, size, seed=seed + 100) if maps else None,
        values(frames, channels, size, size, seed=seed + 200),
    )


def truth(frames=8, output=MULTICLASS):
    rows = np.eye(len(output.labels), dtype=bool)[np.arange(frames) % len(output.labels)]
    return torch.from_numpy(rows)


def objective(output=MULTICLASS, *, weights=None, scales=None, **changes):
    return Objective(
        settings(**changes), output, class_weights=weights, scales=scales or Scales(maps=torch.tensor([1.0, 2.0, 4.0]), features=(1.0,))
    )


def test_softened_answers_diverge_as_hinton_has_it():
    """KL of the softened distributions times T², by hand in float64."""
    student, teacher, temperature = values(6, 3, seed=1).double(), values(6, 3, seed=2).double(), 3.0
    q, p = (student / temperature).exp(), (teacher / temperature).exp()
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    wanted = (p * (p / q).log()).sum(1).mean() * 9
    assert float(soft_loss(student, p, MULTICLASS, temperature)) == pytest.approx(float(wanted), rel=1e-9)


def test_sigmoids_diverge_label_by_label():
    """The mean over the labels of the KL of two Bernoulli distributions, times T²."""
    student, teacher = values(6, 3, seed=1).double(), values(6, 3, seed=2).double()
    q, p = (student / 2).sigmoid(), (teacher / 2).sigmoid()
    wanted = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean() * 4
    assert float(soft_loss(student, p, MULTILABEL, 2.0)) == pytest.approx(float(wanted), rel=1e-9)


def test_sigmoids_have_the_gradient_of_the_cross_entropy_on_soft_labels():
    """Less the entropy is a constant."""
    student, soft = values(6, 3).requires_grad_(), values(6, 3, seed=1).sigmoid()
    (one,) = torch.autograd.grad(soft_loss(student, soft, MULTILABEL, 1.0), student)
    (other,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(student, soft), student)
    assert torch.allclose(one, other, atol=1e-7)


@pytest.mark.parametrize("output", [MULTICLASS, MULTILABEL])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_a_student_that_agrees_has_no_soft_loss(output, scale):
    """Also where the teacher is certain, and its probabilities are 0 and 1."""
    student = values(6, 3) * scale
    soft = combine([Answer(student, None, None)], output, 2.0, 3).soft
    assert float(soft_loss(student, soft, output, 2.0)) == pytest.approx(0, abs=1e-6)


def test_one_logit_and_two_logits_are_one_binary_answer():
    """The log-odds: student and teacher may differ in how they say it, in answers, logits and maps."""
    two = answer(outputs=2, seed=1)
    one = Answer(two.logits[:, 1:] - two.logits[:, :1], two.maps[:, 1:] - two.maps[:, :1], two.features)
    for student, teacher in ((one, two), (two, one)):
        loss = objective(BINARY, scales=Scales(maps=torch.ones(1)), hard_weight=0.0)(student, [teacher], truth(8, BINARY))
        assert float(loss.total) == pytest.approx(0, abs=1e-6)
        assert set(loss.parts) == {"soft", "logits", "maps"}
    other = answer(outputs=2, seed=9)
    soft = [combine([other], BINARY, 1.0, outputs).soft for outputs in (1, 2)]
    assert torch.allclose(soft[0][:, 0], soft[1][:, 1], atol=1e-6)
    assert float(soft_loss(one.logits, soft[0], BINARY, 1.0)) == pytest.approx(float(soft_loss(two.logits, soft[1], BINARY, 1.0)), rel=1e-4)


@pytest.mark.parametrize(("outputs", "output"), [(1, BINARY), (2, BINARY), (3, MULTICLASS), (3, MULTILABEL)])
def test_labels_are_taken_as_the_outputs_mean_them(outputs, output):
    """PyTorch's own cross-entropies; one logit is that of the second label."""
    logits, labels = values(8, outputs), truth(8, output)
    if output is MULTILABEL or outputs == 1:
        wanted = F.binary_cross_entropy_with_logits(logits, labels[:, -outputs:].float())
    else:
        wanted = F.cross_entropy(logits, labels.int().argmax(1))
    assert float(hard_loss(logits, labels, output)) == pytest.approx(float(wanted), rel=1e-6)


def test_rare_labels_weigh_more_and_the_mean_stays():
    """By inverse frequency; each label has the same say, and the mean over the frames is 1."""
    labels = np.eye(3, dtype=bool)[[0] * 12 + [1] * 3 + [2] * 1]
    weights = class_weights(labels, MULTICLASS, 3)
    assert weights.tolist() == pytest.approx([16 / 36, 16 / 9, 16 / 3])
    logits = torch.zeros(16, 3)
    assert float(hard_loss(logits, torch.from_numpy(labels), MULTICLASS, weights)) == pytest.approx(np.log(3), rel=1e-6)


def test_rare_outcomes_of_a_label_weigh_more():
    """Absent and present of each label, also for the one logit of a binary model; an outcome that does not occur weighs nothing."""
    labels = np.zeros((10, 3), dtype=bool)
    labels[0, 0] = labels[:5, 1] = True
    assert class_weights(labels, MULTILABEL, 3).T.tolist() == [pytest.approx(row) for row in ([10 / 18, 5], [1, 1], [1, 0])]
    binary = np.eye(2, dtype=bool)[[0] * 9 + [1]]
    assert class_weights(binary, BINARY, 1).T.tolist() == [pytest.approx([10 / 18, 5])]
    loss = hard_loss(torch.tensor([[2.0]] * 10), torch.from_numpy(binary), BINARY, class_weights(binary, BINARY, 1))
    wanted = (float(F.softplus(torch.tensor(2.0))) + float(F.softplus(torch.tensor(-2.0)))) / 2
    assert float(loss) == pytest.approx(wanted, rel=1e-6)


def test_a_label_that_does_not_occur_takes_nothing_from_the_others():
    """Its weight is 0 and theirs are as without it."""
    assert class_weights(np.eye(3, dtype=bool)[[0, 0, 0, 1]], MULTICLASS, 3).tolist() == pytest.approx([4 / 6, 2, 0])


def test_a_map_at_the_teachers_mean_has_a_loss_of_one():
    """Whatever the teacher's scale, and for outputs of different scales alike."""
    teacher = values(50, 3, 6, 6) * torch.tensor([0.1, 1.0, 100.0])[:, None, None] + 5
    variance = teacher.var((0, 2, 3), correction=0)
    assert float(map_loss(teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher), teacher, variance)) == pytest.approx(1, rel=1e-4)
    assert float(map_loss(teacher, teacher, variance)) == 0


@pytest.mark.parametrize("sizes", [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((4, 8), (8, 4))])
def test_maps_of_two_sizes_are_compared_at_the_smaller(sizes):
    """Flat maps agree at any size, and a gradient across the map is still one."""
    one, other = (torch.linspace(0, 1, size[1] * 8).reshape(size[1], 8).mean(1).expand(2, 3, *size) for size in sizes)
    assert float(map_loss(one, other, torch.ones(3))) < 2e-3
    assert float(map_loss(one, other.flip(3), torch.ones(3))) > 0.1


def test_an_output_that_hardly_varies_does_not_outweigh_the_others():
    """Its variance is taken as a hundredth of the mean."""
    found = floored(torch.tensor([1e-12, 3.0, 3.0]))
    assert found.tolist() == pytest.approx([0.02, 3, 3])
    assert float(floored(torch.zeros(3)).min()) > 0


def test_teachers_are_averaged_in_probabilities_logits_and_maps():
    """And one without maps has no say in the maps."""
    first, second, blind = answer(seed=1), answer(seed=2, size=8), answer(seed=3, maps=False)
    target = combine([first, second, blind], MULTICLASS, 2.0, 3)
    assert torch.allclose(target.soft, torch.stack([(item.logits / 2).softmax(1) for item in (first, second, blind)]).mean(0))
    assert torch.allclose(target.logits, torch.stack([item.logits for item in (first, second, blind)]).mean(0))
    halved = F.interpolate(second.maps, size=(4, 4), mode="bilinear", antialias=True)
    assert torch.allclose(target.maps, (first.maps + halved) / 2)
    assert combine([blind], MULTICLASS, 2.0, 3).maps is None


def test_hints_are_measured_in_the_teachers_variance():
    """And each teacher counts alike."""
    hint, teacher = values(4, 5, 6, 6), values(4, 5, 3, 3, seed=1) * 10
    wanted = ((F.interpolate(hint, size=(3, 3), mode="bilinear", antialias=True) - teacher) ** 2).mean() / 100
    assert float(feature_loss(hint, teacher, 100.0)) == pytest.approx(float(wanted))
    student, teachers = answer(seed=1), [answer(seed=2), answer(seed=3, channels=7), answer(seed=4)._replace(features=None)]
    hints = [values(8, 5, 4, 4), values(8, 7, 4, 4), None]
    ask = objective(scales=Scales(features=(1.0, 2.0, 1.0)), feature_weight=1.0)
    found = ask(student, teachers, truth(), hints).parts["features"]
    each = [feature_loss(hints[0], teachers[0].features, 1.0), feature_loss(hints[1], teachers[1].features, 2.0)]
    assert float(found) == pytest.approx(float(sum(each)) / 2)
    assert "features" not in ask(student, teachers, truth()).parts


def test_the_total_is_the_weighted_sum_of_its_parts():
    """Parts are told unweighted, and a weight of 0 leaves its part out."""
    weights = {"soft_weight": 2.0, "hard_weight": 3.0, "logit_weight": 5.0, "cam_weight": 7.0, "feature_weight": 11.0}
    loss = objective(**weights)(answer(seed=1), [answer(seed=2)], truth(), [values(8, 5, 4, 4)])
    names = ("soft", "hard", "logits", "maps", "features")
    assert float(loss.total) == pytest.approx(
        sum(weight * float(loss.parts[name]) for name, weight in zip(names, weights.values(), strict=True))
    )
    for name, key in zip(names, weights, strict=True):
        less = objective(**{**weights, key: 0.0})(answer(seed=1), [answer(seed=2)], truth(), [values(8, 5, 4, 4)])
        assert set(less.parts) == set(names) - {name}


@pytest.mark.parametrize(("output", "outputs"), [(MULTICLASS, 3), (MULTILABEL, 3), (BINARY, 1), (BINARY, 2)])
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(output, outputs):
    """Every part, so that processes which average gradients train as one."""
    student, teachers, labels = (
        answer(outputs=outputs, seed=1),
        [answer(outputs=outputs, seed=2), answer(outputs=outputs, seed=3)],
        truth(8, output),
    )
    hints = [values(8, 5, 4, 4, seed=7)] * 2
    weights = class_weights(np.concatenate([labels.numpy(), labels.numpy()[:3]]), output, outputs)
    ask = objective(output, weights=weights, scales=Scales(maps=torch.ones(outputs), features=(1.0, 3.0)), feature_weight=1.0)

    def of(rows):
        cut = [Answer(*(part[rows] for part in item)) for item in (student, *teachers)]
        return ask(cut[0], cut[1:], labels[rows], [hint[rows] for hint in hints])

    whole, halves = of(slice(0, 8)), [of(slice(0, 4)), of(slice(4, 8))]
    assert len(whole.parts) == 5
    for name, value in {"total": whole.total, **whole.parts}.items():
        each = [float(half.total if name == "total" else half.parts[name]) for half in halves]
        assert float(value) == pytest.approx(sum(each) / 2, rel=1e-5)


def test_maps_and_features_alone_are_no_objective():
    """They do not fix an answer: a constant may be added to it."""
    with pytest.raises(ValueError, match="do not fix an answer"):
        settings(soft_weight=0.0, hard_weight=0.0, logit_weight=0.0)
