from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpdbench.curriculum import difficulty as d


def test_rank_normalise() -> None:
    assert d.rank_normalise(np.array([3.0, 1.0, 2.0])) == pytest.approx([1.0, 0.0, 0.5])
    assert d.rank_normalise(np.array([1.0, 1.0, 5.0])) == pytest.approx([0.25, 0.25, 1.0])
    assert d.rank_normalise(np.array([4.0])) == pytest.approx([0.5])
    assert d.rank_normalise(np.array([])).shape == (0,)


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=60))
def test_rank_normalise_is_scipy_s_average_rank(values: list[int]) -> None:
    from scipy.stats import rankdata

    expected = (rankdata(values) - 1) / (len(values) - 1)
    assert d.rank_normalise(np.array(values, dtype=float)) == pytest.approx(expected)


def test_flesch_kincaid_by_hand() -> None:
    words = ["the", "cat", "sat", "on", "the", "mat"]
    assert d.flesch_kincaid(words, 1) == pytest.approx(0.39 * 6 + 11.8 * 1 - 15.59)
    assert d.flesch_kincaid([], 1) == 0.0


@pytest.mark.parametrize(
    ("response", "steps"),
    [
        ("Paris.", 1),
        ("He left. She stayed! Why?", 3),
        ("1. Heat the oil.\n2. Add rice.\n3. Stir.", 3),
        ("Step 1 do this\nStep 2 do that", 2),
        ("1단계 씻는다\n2단계 썬다\n3단계 볶는다", 3),
        ("3 + 4 = 7. 7 * 2 = 14. #### 14", 2),
        ("if x == 3 and y >= 2: pass", 1),
        ("\n".join(f"{i}. step" for i in range(1, 15)), 10),
        ("The value 3.14 is pi.", 1),
        ("It is so. " * 9 + "So 2 + 2 = 4.", 10),
        ("1. Wash it. Dry it.\n2. Cut it.", 3),
        ("He sold 48/2 = <<48/2=24>>24 of them.\nSo 48+24 = <<48+24=72>>72 in all.\n#### 72", 2),
        ("She has <<5*2=10>>10.\n#### 10", 1),
        ("a = 3\nb = 4\nprint(a + b)", 3),
        ("#### The first part\nIt ends.", 2),
    ],
)
def test_reasoning_steps(response: str, steps: int) -> None:
    assert d.reasoning_steps(response) == steps


@given(st.text(alphabet="ab1. =\n", max_size=60), st.sampled_from(["\n1. a", " 2 = 3.", " So."]))
def test_a_mark_more_is_no_step_fewer(response: str, more: str) -> None:
    assert d.reasoning_steps(response + more) >= d.reasoning_steps(response)


def test_equal_grades_summed_in_another_order_are_tied() -> None:
    one = d.english_features("Say it.", "The cat sat on the mat.")
    features = [
        dataclasses.replace(one, grade=grade) for grade in (0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.9)
    ]
    found = d.combine(features, ["en"] * 3)
    assert features[0].grade != features[1].grade and found.d1[0] == found.d1[1] < found.d1[2]


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefg"), max_size=120))
def test_moving_type_token_ratio_is_the_plain_mean_over_windows(tokens: list[str]) -> None:
    window = 10
    if len(tokens) > window:
        starts = range(len(tokens) - window + 1)
        expected = np.mean([len(set(tokens[i : i + window])) / window for i in starts])
    else:
        expected = len(set(tokens)) / len(tokens) if tokens else 0.0
    assert d.moving_type_token_ratio(tokens, window) == pytest.approx(expected)


def test_english_gets_harder_with_grade_steps_and_rare_words() -> None:
    prompts = ["What is a cat?", "Explain why, although entropy increases, crystals may form."]
    responses = [
        "A pet.",
        "1. Entropy of the surroundings increases when latent heat is released.\n"
        "2. Consequently the thermodynamic total is positive, because dissipation dominates.",
    ]
    found = d.combine(d.measure(prompts, responses, ["en", "en"]), ["en", "en"])
    assert (np.diff(np.stack([found.d1, found.d2, found.difficulty]), axis=1) > 0).all()


def test_korean_measures() -> None:
    prompts = ["사과는 무엇입니까?", "빛이 휘어지는 까닭을 설명하세요."]
    responses = [
        "과일입니다.",
        "1단계 밀도가 다르면 속력이 달라지고, 속력이 달라지면서 방향이 꺾입니다.\n"
        "2단계 파면이 기울어지므로 굴절이 일어난다고 볼 수 있습니다.",
    ]
    easy, hard = d.measure(prompts, responses, ["ko", "ko"])
    assert easy.clauses < hard.clauses  # connective endings: -면, -고, -면서, -므로
    assert (easy.steps, hard.steps) == (1, 2)
    assert "사과" in easy.content and "는" not in easy.content
    assert hard.grade > easy.grade


def test_languages_are_ranked_apart() -> None:
    prompts = ["a", "a b c d e f g h i", "가", "가 나 다 라 마 바 사"]
    responses = ["x", "x. y. z.", "예", "예. 아니오. 글쎄."]
    found = d.combine(
        d.measure(prompts, responses, ["en", "en", "ko", "ko"]), ["en", "en", "ko", "ko"]
    )
    assert found.d2.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_weights_and_range() -> None:
    generator = np.random.default_rng(0)
    features = [
        d.Features(
            float(generator.normal()),
            0.0,
            float(generator.random()),
            float(generator.random()),
            int(generator.integers(1, 11)),
            tuple(sorted({f"w{i}" for i in generator.integers(0, 50, 5)})),
        )
        for _ in range(200)
    ]
    found = d.combine(features, ["en"] * 200)
    assert found.difficulty == pytest.approx(0.3 * found.d1 + 0.5 * found.d2 + 0.2 * found.d3)
    for part in (found.d1, found.d2, found.d3):
        assert part.min() >= 0 and part.max() <= 1
        assert part.mean() == pytest.approx(0.5)


def test_balanced_probe() -> None:
    generator = np.random.default_rng(1)
    values = generator.random(400)
    languages = ["en"] * 300 + ["ko"] * 100
    chosen = d.balanced_probe(values, languages, 40, 0)
    assert len(set(chosen.tolist())) == 40
    assert (chosen >= 300).sum() == 20
    english = values[chosen[chosen < 300]]
    # One from each of twenty strata: a quarter from each quartile.
    quartile = np.searchsorted(np.quantile(values[:300], [0.25, 0.5, 0.75]), english)
    assert np.bincount(quartile).tolist() == [5, 5, 5, 5]
    assert np.array_equal(chosen, d.balanced_probe(values, languages, 40, 0))
    assert not np.array_equal(chosen, d.balanced_probe(values, languages, 40, 1))
    few = d.balanced_probe(values, ["en"] * 395 + ["ko"] * 5, 40, 0)
    assert (few >= 395).sum() == 5
    with pytest.raises(ValueError, match="leaves nothing"):
        d.balanced_probe(values, languages, 400, 0)


def test_a_probe_by_source_is_the_corpus_in_small() -> None:
    generator = np.random.default_rng(1)
    values = generator.random(1000)
    languages = ["en"] * 600 + ["ko"] * 400
    sources = ["a"] * 500 + ["b"] * 100 + ["a"] * 40 + ["c"] * 360
    chosen = d.balanced_probe(values, languages, 50, 0, sources)
    assert len(set(chosen.tolist())) == 50
    parts = [(0, 500, 25), (500, 600, 5), (600, 640, 2), (640, 1000, 18)]
    assert [((chosen >= a) & (chosen < b)).sum() for a, b, _ in parts] == [n for _, _, n in parts]
    of_a = values[chosen[chosen < 500]]
    quintile = np.searchsorted(np.quantile(values[:500], [0.2, 0.4, 0.6, 0.8]), of_a)
    assert np.bincount(quintile).tolist() == [5, 5, 5, 5, 5]
    assert np.array_equal(chosen, d.balanced_probe(values, languages, 50, 0, sources))
    # Shares that do not go round: the largest remainders, and never more than asked.
    odd = d.balanced_probe(values, languages, 7, 0, sources)
    assert [((odd >= a) & (odd < b)).sum() for a, b, _ in parts] == [3, 1, 0, 3]
    # By language alone half of it is Korean.
    assert (d.balanced_probe(values, languages, 50, 0) >= 600).sum() == 25


def test_speed_of_the_model_free_part(data_dir: Path) -> None:
    rows = json.loads((data_dir / "instruct_en/alpaca_random_9229.json").read_text("utf-8"))[:4000]
    prompts = [f"{r['instruction']} {r['input']}" for r in rows]
    responses = [r["output"] for r in rows]
    start = time.process_time()
    d.combine(d.measure(prompts, responses, ["en"] * len(rows)), ["en"] * len(rows))
    assert len(rows) / (time.process_time() - start) > 2000


def test_workers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d, "CHUNK", 7)
    prompts = [f"Explain why {i} is a number, although it is small." for i in range(20)]
    prompts += [f"{i}은 왜 수입니까?" for i in range(10)]
    responses = [f"Because {'it follows. ' * (i % 5 + 1)}{i} = {i}." for i in range(20)]
    responses += [f"{i}은 {'작지만 ' * (i % 3)}수이기 때문입니다." for i in range(10)]
    languages = ["en"] * 20 + ["ko"] * 10
    order = np.random.default_rng(0).permutation(30)
    texts = [[values[i] for i in order] for values in (prompts, responses, languages)]
    alone = d.measure(*texts)
    assert d.measure(*texts, workers=2) == alone
