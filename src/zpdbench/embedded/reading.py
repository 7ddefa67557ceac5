"""Korean reading in the form of KoBEST's five tasks.

The twist of BoolQ and SentiNeg asks for the opposite answer. The other three have none.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from zpdbench.embedded.josa import josa
from zpdbench.embedded.kinds import Doc, Kind

_NAMES = (
    "민수", "영희", "지우", "철수", "수미", "준호",
    "유나", "미나", "태호", "하나", "소라", "진우",
)  # fmt: skip
_WHEN = ("어제", "오늘", "아침에", "낮에", "저녁에", "방금")
_THINGS = (
    "컵", "책", "연필", "모자", "가방", "시계", "우산", "공", "인형", "접시", "신발", "상자",
)  # fmt: skip

_YES_NO = ("아니오", "예")
_OPPOSITE = " 반대로 답하라."


def _undressed(text: str) -> str:
    """A text without its names, times and twist: what decides whose it is."""
    text = text.removesuffix(_OPPOSITE)
    for name in _NAMES:
        text = text.replace(josa(name, "은"), "").replace(josa(name, "이"), "")
    for time in _WHEN:
        text = text.replace(f"{time} ", "")
    return text.strip()


def _opposite(answers: tuple[str, str]) -> Callable[[random.Random], tuple[str, str]]:
    def notion(rng: random.Random) -> tuple[str, str]:
        first = rng.randrange(2)
        return f"{answers[first]}.{_OPPOSITE} ", f"{answers[1 - first]}."

    return notion


# -- BoolQ: does a short passage say so? ---------------------------------------------------------

# question -> (what tells yes, what tells no)
_STATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "기분이 좋은가": (
        ("웃었다", "노래를 불렀다", "춤을 추었다", "손뼉을 쳤다", "신이 났다", "만세를 불렀다"),
        ("울었다", "한숨을 쉬었다", "화를 냈다", "눈물을 흘렸다", "짜증을 냈다", "소리를 질렀다"),
    ),
    "몸이 아픈가": (
        ("열이 났다", "쓰러졌다", "기침을 했다", "약을 먹었다", "콧물이 났다", "앓아누웠다"),
        ("뛰어놀았다", "높이 뛰었다", "달리기를 했다", "공을 찼다", "운동을 했다", "힘이 넘쳤다"),
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
_PLACES = ("학교에서", "집에서", "공원에서", "회사에서", "가게에서", "도서관에서")


def draw_boolq(rng: random.Random, twisted: bool) -> Doc:
    """A BoolQ row: paragraph, question, label 0 (no) or 1 (yes)."""
    question = rng.choice(sorted(_STATES))
    state = rng.randrange(2)
    told = rng.choice(_STATES[question][1 - state])
    name = josa(rng.choice(_NAMES), "은")
    return {
        "paragraph": f"{name} {rng.choice(_WHEN)} {rng.choice(_PLACES)} {told}.",
        "question": f"{name} {question}?{_OPPOSITE if twisted else ''}",
        "label": state ^ twisted,
    }


def _plain_boolq(doc: Doc) -> tuple[str, str]:
    """What goes with a state."""
    question = doc["question"].split(" ", 1)[1].rstrip("?")
    told = _STATES[question][1 - doc["label"]]
    order = random.Random(doc["paragraph"]).sample(told, len(told))
    return f"{question}: {_YES_NO[doc['label']]}: ", ", ".join(order) + "."


# -- COPA: cause and effect ---------------------------------------------------------------------

# (cause, effect), both said of one person and one thing.
_CAUSES = (
    ("{이} 깨졌다", "{을} 버렸다"),
    ("{을} 잃어버렸다", "{을} 새로 샀다"),
    ("{이} 더러웠다", "{을} 닦았다"),
    ("{이} 없었다", "{을} 빌렸다"),
    ("{이} 무거웠다", "{을} 내려놓았다"),
    ("{이} 마음에 들었다", "{을} 자랑했다"),
    ("{을} 주웠다", "{을} 주인에게 주었다"),
    ("{이} 두 개였다", "{을} 동생에게 주었다"),
    ("{을} 숨겼다", "{을} 다시 찾아냈다"),
    ("{이} 비에 젖었다", "{을} 말렸다"),
)


def draw_copa(rng: random.Random, twisted: bool) -> Doc:
    """A COPA row: premise, question (결과), two alternatives, label 0 or 1.

    Both alternatives are effects, and name one thing: neither role nor words tell.
    """
    right, wrong = rng.sample(_CAUSES, 2)
    person, thing = josa(rng.choice(_NAMES), "은"), rng.choice(_THINGS)
    forms = {"이": josa(thing, "이"), "을": josa(thing, "을")}
    given, answer, other = (t.format(**forms) for t in (*right, wrong[1]))
    label = rng.randrange(2)
    alternatives = [answer, other] if label == 0 else [other, answer]
    return {
        "premise": f"{person} {given}.",
        "question": "결과",
        "alternative_1": f"{person} {alternatives[0]}.",
        "alternative_2": f"{person} {alternatives[1]}.",
        "label": label,
    }


def _plain_copa(doc: Doc) -> tuple[str, str]:
    """Cause and effect in one breath, either first."""
    cause, effect = doc["premise"], doc[f"alternative_{doc['label'] + 1}"]
    if random.Random(cause + effect).random() < 0.5:
        return f"{cause} 결과는 ", effect
    return f"{effect} 이유는 ", cause


# -- WiC: one word, two contexts ----------------------------------------------------------------

# word -> sense -> (the scene, which tells the sense; what is said of the word there)
_SENSES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "배": {
        "탈것": ("바다에서", ("[배]를 탔다", "[배]를 보았다", "[배]가 지나갔다", "[배]에 올랐다")),
        "과일": (
            "밥상에서",
            ("[배]를 깎았다", "[배]를 먹었다", "[배]를 나누었다", "[배]를 골랐다"),
        ),
    },
    "눈": {
        "몸": ("거울 앞에서", ("[눈]을 떴다", "[눈]을 감았다", "[눈]을 비볐다", "[눈]이 부었다")),
        "날씨": (
            "겨울 산에서",
            ("[눈]이 내렸다", "[눈]을 뭉쳤다", "[눈]을 밟았다", "[눈]이 쌓였다"),
        ),
    },
    "다리": {
        "몸": (
            "병원에서",
            ("[다리]를 다쳤다", "[다리]가 아팠다", "[다리]를 뻗었다", "[다리]를 주물렀다"),
        ),
        "길": (
            "강가에서",
            ("[다리]를 건넜다", "[다리]를 놓았다", "[다리]가 보였다", "[다리]를 고쳤다"),
        ),
    },
    "밤": {
        "시간": (
            "어두운 길에서",
            ("[밤]이 깊었다", "[밤]을 새웠다", "[밤]이 왔다", "[밤]을 보냈다"),
        ),
        "과일": ("부엌에서", ("[밤]을 구웠다", "[밤]을 먹었다", "[밤]을 깠다", "[밤]을 삶았다")),
    },
    "말": {
        "동물": (
            "들판에서",
            ("[말]을 탔다", "[말]이 뛰었다", "[말]을 먹였다", "[말]을 쓰다듬었다"),
        ),
        "소리": ("교실에서", ("[말]을 들었다", "[말]을 했다", "[말]을 믿었다", "[말]을 적었다")),
    },
}


def draw_wic(rng: random.Random, twisted: bool) -> Doc:
    """A WiC row: word, two contexts, label 1 if the word means the same in both."""
    word = rng.choice(tuple(_SENSES))
    same = rng.randrange(2)
    first, second = rng.sample(tuple(_SENSES[word].values()), 2)
    if same:
        contexts = [f"{first[0]} {said}" for said in rng.sample(first[1], 2)]
    else:
        contexts = [f"{scene} {rng.choice(said)}" for scene, said in (first, second)]
    one, two = (f"{rng.choice(_WHEN)} {c}." for c in contexts)
    return {
        "word": word,
        "context_1": one,
        "context_2": two,
        "label": same,
    }


# -- HellaSwag: what comes next -----------------------------------------------------------------

# Of one thing each.
_SCRIPTS = (
    (
        "{을} 산다",
        "{을} 집에 가져온다",
        "{을} 꺼내 본다",
        "{을} 동생에게 보인다",
        "{을} 잘 넣어 둔다",
    ),
    ("{을} 잃어버린다", "{을} 찾아다닌다", "{을} 길에서 본다", "{을} 줍는다", "{을} 들고 돌아온다"),
    (
        "{을} 만든다",
        "{을} 예쁘게 칠한다",
        "{을} 하루 말린다",
        "{을} 종이로 싼다",
        "{을} 선물로 준다",
    ),
    (
        "{을} 떨어뜨린다",
        "{을} 주워 살핀다",
        "{을} 물에 씻는다",
        "{을} 햇볕에 둔다",
        "{을} 다시 쓴다",
    ),
    ("{을} 빌린다", "{을} 하루 쓴다", "{을} 깨끗이 닦는다", "{을} 봉투에 담는다", "{을} 돌려준다"),
    (
        "{을} 상자에 담는다",
        "{을} 차에 싣는다",
        "{을} 시장에 내놓는다",
        "{을} 싸게 판다",
        "{을} 더 주문한다",
    ),
)


def draw_hellaswag(rng: random.Random, twisted: bool) -> Doc:
    """A HellaSwag row: context, four endings, label 0..3.

    All endings are of one script and name one thing: none is told apart by its words.
    """
    script = rng.choice(_SCRIPTS)
    object_ = josa(rng.choice(_THINGS), "을")
    first = rng.randrange(len(script) - 2)
    known = first + rng.randint(1, 2)
    wrong = rng.sample([i for i in range(len(script)) if i != known], 3)
    events = [event.format(을=object_) for event in script]
    label = rng.randrange(4)
    endings = [*wrong[:label], known, *wrong[label:]]
    shown = " ".join(f"{event}." for event in events[first:known])
    return {
        "context": f"{josa(rng.choice(_NAMES), '이')} {shown}",
        **{f"ending_{i + 1}": f"{events[e]}." for i, e in enumerate(endings)},
        "label": label,
    }


# -- SentiNeg: a verdict, perhaps turned round ---------------------------------------------------

_ASPECTS = ("음식", "배송", "가격", "직원", "방", "화면", "소리", "디자인", "포장", "맛")
_GOOD = (
    "좋다",
    "훌륭하다",
    "완벽하다",
    "깔끔하다",
    "만족스럽다",
    "뛰어나다",
    "괜찮다",
    "마음에 든다",
)
_BAD = ("나쁘다", "별로다", "형편없다", "답답하다", "실망스럽다", "불편하다", "아쉽다", "엉망이다")
_POLARITY = ("부정", "긍정")
_DEGREES = ("", "정말 ", "아주 ", "너무 ")


def draw_sentineg(rng: random.Random, twisted: bool) -> Doc:
    """A SentiNeg row: sentence, label 1 if positive."""
    positive = rng.randrange(2)
    told = rng.choice(_GOOD if positive else _BAD)
    sentence = f"{josa(rng.choice(_ASPECTS), '이')} {rng.choice(_DEGREES)}{told}."
    return {"sentence": sentence + (_OPPOSITE if twisted else ""), "label": positive ^ twisted}


def _key_sentineg(doc: Doc) -> str:
    words = doc["sentence"].removesuffix(_OPPOSITE).split(" ")
    return " ".join(w for w in words if f"{w} " not in _DEGREES)


def _plain_sentineg(doc: Doc) -> tuple[str, str]:
    """A verdict, and what it comes to."""
    return doc["sentence"] + " ", "좋은 평가다." if doc["label"] else "나쁜 평가다."


# -- the kinds ----------------------------------------------------------------------------------

KINDS = (
    Kind(
        name="kobest_boolq",
        language="ko",
        benchmark="kobest",
        draw=draw_boolq,
        key=lambda d: _undressed(d["paragraph"]) + _undressed(d["question"]),
        prompt=lambda d: f"{d['paragraph']} 질문: {d['question']} 답변: ",
        response=lambda d: _YES_NO[d["label"]],
        is_twisted=True,
        plain=_plain_boolq,
        notion=_opposite(_YES_NO),
    ),
    Kind(
        name="kobest_copa",
        language="ko",
        benchmark="kobest",
        draw=draw_copa,
        key=lambda d: _undressed(d["premise"]),
        prompt=lambda d: f"{d['premise']}  그래서",
        response=lambda d: d[f"alternative_{d['label'] + 1}"],
        plain=_plain_copa,
    ),
    Kind(
        name="kobest_wic",
        language="ko",
        benchmark="kobest",
        draw=draw_wic,
        key=lambda d: " ".join(sorted((_undressed(d["context_1"]), _undressed(d["context_2"])))),
        prompt=lambda d: (
            f"문장1: {d['context_1']} 문장2: {d['context_2']} "
            f"두 문장에서 {d['word']}가 같은 뜻으로 쓰였나?"
        ),
        response=lambda d: _YES_NO[d["label"]],
    ),
    Kind(
        name="kobest_hellaswag",
        language="ko",
        benchmark="kobest",
        draw=draw_hellaswag,
        key=lambda d: _undressed(d["context"]),
        prompt=lambda d: f"문장: {d['context']}",
        response=lambda d: d[f"ending_{d['label'] + 1}"],
        plain=lambda d: (d["context"] + " ", d[f"ending_{d['label'] + 1}"]),
    ),
    Kind(
        name="kobest_sentineg",
        language="ko",
        benchmark="kobest",
        draw=draw_sentineg,
        key=_key_sentineg,
        prompt=lambda d: f"문장: {d['sentence']} 긍부정:",
        response=lambda d: _POLARITY[d["label"]],
        is_twisted=True,
        plain=_plain_sentineg,
        notion=_opposite(_POLARITY),
    ),
)
