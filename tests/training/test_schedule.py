import pytest

from reid_kit.training.schedule import build_schedule


def test_constant_with_warmup():
    factor = build_schedule("constant", 100, 10, warmup_epochs=2)
    assert factor(0) == pytest.approx(0.01 + 0.99 / 20)
    assert factor(9) == pytest.approx(0.01 + 0.99 * 0.5)
    assert factor(19) == factor(99) == 1


def test_steps_fall_at_their_epochs():
    factor = build_schedule("step", 100, 10, steps=[4, 9], gamma=0.1)
    assert [factor(i) for i in (39, 40, 89, 90)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_cosine_falls_from_the_end_of_the_warmup_to_the_end_factor():
    factor = build_schedule("cosine", 100, 10, warmup_epochs=2, end_factor=0.1)
    assert factor(20) == pytest.approx(1)
    assert factor(60) == pytest.approx(0.1 + 0.9 / 2)
    assert factor(100) == pytest.approx(0.1)


def test_exponential_is_constant_and_then_geometric():
    factor = build_schedule("exponential", 25000, 1000, decay_start=15, end_factor=0.001)
    assert factor(14999) == 1
    assert factor(20000) == pytest.approx(0.001**0.5)
    assert factor(25000) == pytest.approx(0.001)
    assert factor(17000) / factor(16000) == pytest.approx(factor(18000) / factor(17000))
