"""Korean reading in the form of KoBEST's five tasks."""

from __future__ import annotations

import random

from zpdbench.embedded.josa import josa
from zpdbench.embedded.kinds import Doc, Kind

_NAMES = (
    "민수", "영희", "지우", "철수", "수미", "준호",
    "유나", "미나", "태호", "하나", "소라", "진우",
)  # fmt: skip

_YES_NO = ("아니오", "예")

# -- BoolQ: does a short passage say so? ---------------------------------------------------------

# question -> (what tells yes, what tells no)
_STATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "기분이 좋은가": (
        ("웃었다", "노래를 불렀다", "춤을 추었다", "손뼉을 쳤다", "신이 났다", "만세를 불렀다"),
        ("울었다", "한숨을 쉬었다", "화를 냈다", "눈물을 흘렸다", "짜증을 냈다", "소리를 질렀다"),
    ),
    "몸이 아픈가": (
        ("열이 났다", "병원에 갔다", "기침을 했다", "약을 먹었다", "콧물이 났다", "앓아누웠다"),
        ("뛰어놀았다", "산에 올랐다", "수영을 했다", "공을 찼다", "운동을 했다", "힘이 넘쳤다"),
    ),
    "지금 바쁜가": (
        (
            "쉴 틈이 없었다",
            "일이 밀렸다",
            "밤새 일했다",
            "서둘러 나갔다",
            "정신이 없었다",
            "급히 뛰었다",
        ),
        ("푹 쉬었다", "낮잠을 잤다", "하품을 했다", "빈둥거렸다", "느긋했다", "할 일이 없었다"),
    ),
}
_ASIDES = (
    "날씨가 맑았다",
    "비가 왔다",
    "바람이 불었다",
    "눈이 내렸다",
    "해가 졌다",
    "구름이 끼었다",
)
_WHEN = ("어제", "오늘", "아침에", "낮에", "저녁에", "방금")


def draw_boolq(rng: random.Random, familiar: bool) -> Doc:
    """A BoolQ row: paragraph, question, label 0 (no) or 1 (yes)."""
    question = rng.choice(sorted(_STATES))
    label = rng.randrange(2)
    told = _STATES[question][1 - label]
    name = rng.choice(_NAMES)
    sentences = [
        f"{josa(name, '은')} {rng.choice(_WHEN)} {rng.choice(told[::2] if familiar else told)}."
    ]
    for _ in range(0 if familiar else rng.randint(0, 2)):
        sentences.insert(rng.randrange(len(sentences) + 1), f"{rng.choice(_ASIDES)}.")
    return {
        "paragraph": " ".join(sentences),
        "question": f"{josa(name, '은')} {question}?",
        "label": label,
    }


def plain_boolq(doc: Doc) -> tuple[str, str]:
    """What goes with a state."""
    question = doc["question"].split(" ", 1)[1].rstrip("?")
    told = _STATES[question][1 - doc["label"]]
    order = random.Random(doc["paragraph"]).sample(told, len(told))
    return f"{question}: {_YES_NO[doc['label']]}: ", ", ".join(order) + "."


# -- COPA: cause and effect ---------------------------------------------------------------------

# (cause, effect), both said of one person.
_CAUSES = (
    ("늦잠을 잤다", "학교에 늦었다"), ("비를 맞았다", "감기에 걸렸다"),
    ("공부를 많이 했다", "시험을 잘 보았다"), ("밥을 못 먹었다", "배가 고팠다"),
    ("물을 쏟았다", "바닥을 닦았다"), ("돈을 잃어버렸다", "책을 못 샀다"),
    ("운동을 많이 했다", "땀이 났다"), ("길을 몰랐다", "지도를 보았다"),
    ("선물을 받았다", "고맙다고 말했다"), ("넘어졌다", "무릎을 다쳤다"),
    ("이가 아팠다", "치과에 갔다"), ("머리가 길었다", "미용실에 갔다"),
    ("방이 어두웠다", "불을 켰다"), ("날씨가 추웠다", "외투를 입었다"),
    ("목이 말랐다", "물을 마셨다"), ("잠을 못 잤다", "하품을 했다"),
    ("옷이 더러웠다", "빨래를 했다"), ("약속을 잊었다", "친구에게 사과했다"),
    ("생일이 되었다", "케이크를 먹었다"), ("버스를 놓쳤다", "택시를 탔다"),
    ("슬픈 영화를 보았다", "눈물을 흘렸다"), ("컵을 떨어뜨렸다", "컵이 깨졌다"),
    ("열이 났다", "약을 먹었다"), ("편지를 썼다", "우체국에 갔다"),
)  # fmt: skip
_FAMILIAR_CAUSES = _CAUSES[::2]


def draw_copa(rng: random.Random, familiar: bool) -> Doc:
    """A COPA row: premise, question (원인 or 결과), two alternatives, label 0 or 1."""
    pairs = _FAMILIAR_CAUSES if familiar else _CAUSES
    right, wrong = rng.sample(pairs, 2)
    person = josa(rng.choice(_NAMES), "은")
    asked = 0 if familiar else rng.randrange(2)  # 0: the cause is asked for
    given, answer = right[1 - asked], right[asked]
    other = wrong[asked] if rng.random() < 0.5 else wrong[1 - asked]
    label = rng.randrange(2)
    alternatives = [answer, other] if label == 0 else [other, answer]
    return {
        "premise": f"{person} {given}.",
        "question": ("원인", "결과")[asked],
        "alternative_1": f"{person} {alternatives[0]}.",
        "alternative_2": f"{person} {alternatives[1]}.",
        "label": label,
    }


def plain_copa(doc: Doc) -> tuple[str, str]:
    """Cause and effect in one breath."""
    right = doc[f"alternative_{doc['label'] + 1}"]
    link = " 이유는 " if doc["question"] == "원인" else " 결과는 "
    return doc["premise"] + link, right


# -- WiC: one word, two contexts ----------------------------------------------------------------

# word -> two senses -> contexts
_SENSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "배": (
        (
            "[배]를 타고 섬에 갔다", "[배]가 항구에 들어왔다",
            "[배]가 바다를 건넜다", "[배]에 짐을 실었다",
        ),
        (
            "[배]를 깎아 먹었다", "[배]가 달고 시원했다",
            "시장에서 [배]를 샀다", "나무에서 [배]를 땄다",
        ),
    ),
    "눈": (
        (
            "[눈]을 크게 떴다", "[눈]이 나빠 안경을 썼다",
            "[눈]을 감고 쉬었다", "[눈]에서 눈물이 났다",
        ),
        (
            "[눈]이 하얗게 내렸다", "[눈]이 와서 길이 미끄러웠다",
            "[눈]을 뭉쳐 던졌다", "[눈]이 쌓인 산에 갔다",
        ),
    ),
    "다리": (
        (
            "[다리]를 다쳐 걷지 못했다", "[다리]가 아파 앉았다",
            "[다리]를 쭉 뻗었다", "긴 [다리]로 뛰었다",
        ),
        (
            "[다리]를 건너 강을 지났다", "[다리] 위로 차가 지나갔다",
            "강에 [다리]를 놓았다", "[다리] 밑에 배가 지나갔다",
        ),
    ),
    "밤": (
        (
            "[밤]이 깊어 잠을 잤다", "어두운 [밤]에 별을 보았다",
            "[밤]에 달이 떴다", "[밤]까지 공부했다",
        ),
        (
            "[밤]을 구워 먹었다", "산에서 [밤]을 주웠다",
            "[밤]의 껍질을 깠다", "[밤]이 달고 맛있었다",
        ),
    ),
    "말": (
        (
            "[말]을 타고 달렸다", "[말]이 풀을 먹었다",
            "[말]에게 당근을 주었다", "[말]이 들판을 뛰었다",
        ),
        ("[말]을 조용히 들었다", "[말]을 크게 했다", "고운 [말]을 썼다", "[말]을 믿지 않았다"),
    ),
}  # fmt: skip
_FAMILIAR_WORDS = tuple(_SENSES)[::2]
_TIMES = ("어제", "오늘", "그날", "아침에")


def draw_wic(rng: random.Random, familiar: bool) -> Doc:
    """A WiC row: word, two contexts, label 1 if the word means the same in both."""
    word = rng.choice(_FAMILIAR_WORDS if familiar else tuple(_SENSES))
    label = rng.randrange(2)
    first = rng.randrange(2)
    if label:
        contexts = rng.sample(_SENSES[word][first], 2)
    else:
        contexts = [rng.choice(_SENSES[word][first]), rng.choice(_SENSES[word][1 - first])]
    one, two = (f"{rng.choice(_TIMES)} {c}." for c in contexts)
    return {"word": word, "context_1": one, "context_2": two, "label": label}


def plain_wic(doc: Doc) -> tuple[str, str]:
    """Two sentences, and whether the word means the same."""
    verdict = "뜻이 같다." if doc["label"] else "뜻이 다르다."
    return f"{doc['context_1']} {doc['context_2']} ", verdict


# -- HellaSwag: what comes next -----------------------------------------------------------------

_SCRIPTS = (
    ("냄비에 물을 붓는다", "불을 켠다", "물에 면을 넣는다", "그릇에 면을 담는다"),
    ("칫솔에 치약을 짠다", "이를 닦는다", "입을 헹군다", "수건으로 입을 닦는다"),
    ("씨앗을 산다", "땅을 판다", "씨앗을 심는다", "씨앗에 물을 준다"),
    ("편지를 쓴다", "봉투에 편지를 넣는다", "봉투에 우표를 붙인다", "우체통에 봉투를 넣는다"),
    ("세탁기에 빨래를 넣는다", "세탁기를 돌린다", "빨래를 꺼낸다", "빨래를 넌다"),
    ("책방에 간다", "책을 고른다", "책값을 낸다", "집에서 책을 읽는다"),
    ("버스를 기다린다", "버스에 탄다", "자리에 앉는다", "버스에서 내린다"),
    ("붓을 든다", "붓에 물감을 묻힌다", "종이에 그림을 그린다", "벽에 그림을 건다"),
    ("빵을 자른다", "빵에 잼을 바른다", "빵을 접시에 놓는다", "빵을 먹는다"),
    ("공을 든다", "공을 던진다", "공을 쫓아 달린다", "공을 줍는다"),
    ("수영복을 입는다", "물에 들어간다", "팔을 저어 헤엄친다", "물에서 나온다"),
    ("낚싯대를 챙긴다", "강가에 앉는다", "낚싯줄을 던진다", "물고기를 잡는다"),
)
_FAMILIAR_SCRIPTS = _SCRIPTS[::2]


def draw_hellaswag(rng: random.Random, familiar: bool) -> Doc:
    """A HellaSwag row: context, four endings, label 0..3."""
    scripts = _FAMILIAR_SCRIPTS if familiar else _SCRIPTS
    script = rng.choice(scripts)
    known = rng.randint(1, len(script) - 1)
    first = rng.randrange(known)
    person = rng.choice(_NAMES)
    shown = list(script[first:known])
    context = f"{josa(person, '이')} {shown[0]}." + "".join(f" {s}." for s in shown[1:])
    # One wrong ending out of the same script, two of others.
    own = [s for i, s in enumerate(script) if i != known and s not in shown]
    others = [s for other in scripts if other is not script for s in other]
    wrong = rng.sample(own, min(1, len(own)))
    wrong += rng.sample(others, 3 - len(wrong))
    rng.shuffle(wrong)
    label = rng.randrange(4)
    endings = [*wrong[:label], script[known], *wrong[label:]]
    return {
        "context": context,
        **{f"ending_{i + 1}": f"{e}." for i, e in enumerate(endings)},
        "label": label,
    }


def plain_hellaswag(doc: Doc) -> tuple[str, str]:
    """What happened, told on."""
    return doc["context"] + " ", doc[f"ending_{doc['label'] + 1}"]


# -- SentiNeg: a verdict, perhaps negated --------------------------------------------------------

_ASPECTS = ("음식", "배송", "가격", "직원", "방", "화면", "소리", "디자인", "포장", "맛")
_GOOD = ("좋", "훌륭하", "완벽하", "깔끔하", "만족스럽", "뛰어나", "괜찮", "마음에 들")
_BAD = ("나쁘", "별로이", "형편없", "답답하", "실망스럽", "불편하", "아쉽", "엉망이")
_FAMILIAR_GOOD, _FAMILIAR_BAD = _GOOD[::2], _BAD[::2]
_DEGREES = ("", "정말 ", "아주 ", "너무 ")


def draw_sentineg(rng: random.Random, familiar: bool) -> Doc:
    """A SentiNeg row: sentence, label 1 if positive; the last clause decides."""
    good, bad = (_FAMILIAR_GOOD, _FAMILIAR_BAD) if familiar else (_GOOD, _BAD)
    clauses = 1 if familiar else rng.randint(1, 2)
    aspects = rng.sample(_ASPECTS, clauses)
    label = rng.randrange(2)
    told = []
    for position, aspect in enumerate(aspects):
        last = position == clauses - 1
        positive = bool(label) if (clauses - 1 - position) % 2 == 0 else not label
        negated = not familiar and rng.random() < 0.5
        stem = rng.choice(good if positive != negated else bad)
        ending = ("지 않" if negated else "") + ("다." if last else "지만")
        told.append(f"{josa(aspect, '이')} {rng.choice(_DEGREES)}{stem}{ending}")
    return {"sentence": " ".join(told), "label": label}


def plain_sentineg(doc: Doc) -> tuple[str, str]:
    """A verdict, and what it comes to."""
    return doc["sentence"] + " ", "좋은 평가다." if doc["label"] else "나쁜 평가다."


# -- the kinds ----------------------------------------------------------------------------------

_CONNECTORS = {"원인": " 왜냐하면", "결과": " 그래서"}

KINDS = (
    Kind(
        name="kobest_boolq",
        language="ko",
        benchmark="kobest",
        draw=draw_boolq,
        key=lambda d: d["paragraph"],
        prompt=lambda d: f"{d['paragraph']} 질문: {d['question']} 답변: ",
        response=lambda d: _YES_NO[d["label"]],
        plain=plain_boolq,
    ),
    Kind(
        name="kobest_copa",
        language="ko",
        benchmark="kobest",
        draw=draw_copa,
        key=lambda d: f"{d['premise']} {d['question']}",
        prompt=lambda d: f"{d['premise']} {_CONNECTORS[d['question']]}",
        response=lambda d: d[f"alternative_{d['label'] + 1}"],
        plain=plain_copa,
    ),
    Kind(
        name="kobest_wic",
        language="ko",
        benchmark="kobest",
        draw=draw_wic,
        key=lambda d: " ".join(sorted((d["context_1"], d["context_2"]))),
        prompt=lambda d: (
            f"문장1: {d['context_1']} 문장2: {d['context_2']} "
            f"두 문장에서 {d['word']}가 같은 뜻으로 쓰였나?"
        ),
        response=lambda d: _YES_NO[d["label"]],
        plain=plain_wic,
    ),
    Kind(
        name="kobest_hellaswag",
        language="ko",
        benchmark="kobest",
        draw=draw_hellaswag,
        key=lambda d: d["context"],
        prompt=lambda d: f"문장: {d['context']}",
        response=lambda d: d[f"ending_{d['label'] + 1}"],
        plain=plain_hellaswag,
    ),
    Kind(
        name="kobest_sentineg",
        language="ko",
        benchmark="kobest",
        draw=draw_sentineg,
        key=lambda d: d["sentence"],
        prompt=lambda d: f"문장: {d['sentence']} 긍부정:",
        response=lambda d: ("부정", "긍정")[d["label"]],
        plain=plain_sentineg,
    ),
)
