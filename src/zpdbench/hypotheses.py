"""The pre-registered hypotheses: the `hypotheses` section of a study's configuration.

Only pydantic is imported, so that the study model below the libraries can use these classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
OneSided = Annotated[float, Field(gt=0.0, lt=0.5)]
Margin = Annotated[float, Field(ge=0.0)]
Name = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClaimedGain(_Section):
    """What is claimed of one benchmark: gain of treatment over control, in percentage points."""

    small_pp: float = Field(
        validation_alias=AliasChoices("small_pp", "small"),
        description="Gain in the small model, percentage points.",
    )
    large_pp: float = Field(
        validation_alias=AliasChoices("large_pp", "large"),
        description="Gain in the large model, percentage points.",
    )
    small_score: float | None = Field(
        None, ge=0, le=100, description="Expected treatment score of the small model, per cent."
    )
    large_score: float | None = Field(
        None, ge=0, le=100, description="Expected treatment score of the large model, per cent."
    )


class ClaimedEffectSize(_Section):
    """Claimed standardised effects (Cohen's d on the pooled SD) of the two models."""

    small: float = Field(description="The small model's, in standard deviations.")
    large: float = Field(description="The large model's, in standard deviations.")


class ClaimedRange(_Section):
    """A claimed range, in per cent, for each of the two models."""

    small: tuple[float, float] = Field(description="Lower and upper end, small model, per cent.")
    large: tuple[float, float] = Field(description="Lower and upper end, large model, per cent.")

    @model_validator(mode="after")
    def _ordered(self) -> ClaimedRange:
        for name in ("small", "large"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the lower end comes first")
        return self


class Claimed(BaseModel):
    """The user's expectations: benchmark -> gain, besides `d` and `steps_saved`."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, ClaimedGain] = Field(init=False)

    d: ClaimedEffectSize | None = None
    steps_saved: ClaimedRange | None = Field(
        None, description="Steps saved on the way to the control's final score, per cent."
    )

    @property
    def benchmarks(self) -> dict[str, ClaimedGain]:
        """Benchmark -> claimed gain."""
        return dict(self.__pydantic_extra__ or {})


class _Contrast(_Section):
    treatment: Name = Field("zpd", description="The condition whose gain is claimed.")
    control: Name = Field("random", description="The condition that it is compared with.")
    alpha: OneSided = Field(
        0.025,
        description="Level of the one-sided tests; intervals have level 1 - 2 alpha, so that both "
        "say the same.",
    )

    @model_validator(mode="after")
    def _different_conditions(self) -> Any:
        if self.treatment == self.control:
            raise ValueError("treatment and control are the same condition")
        return self


class _Gain(_Contrast):
    margin_gain: Margin = Field(
        0.0,
        description="What the gain itself must exceed, percentage points.",
    )


class H3a(_Gain):
    """Treatment gains over control in the larger model, and more than in the smaller one."""

    small: Name = Field(description="Name of the smaller model.")
    large: Name = Field(description="Name of the larger model.")
    side: Literal["larger", "smaller"] = Field(
        "larger",
        description="Where the effect is said to be larger (and to be a gain): in the large model, "
        "or, smaller, in the small one.",
    )
    margin: Margin = Field(
        0.0,
        description="What the difference must exceed, percentage points, in the direction of "
        "`side`.",
    )
    benchmarks: list[Name] | None = Field(
        None, description="Benchmarks of the endpoint; null: all of the study."
    )
    claimed: Claimed = Claimed()

    @model_validator(mode="after")
    def _sensible(self) -> H3a:
        if self.small == self.large:
            raise ValueError("small and large are the same model")
        if self.benchmarks is not None:
            if not self.benchmarks:
                raise ValueError("benchmarks is empty: name some, or leave it out for all")
            if len(set(self.benchmarks)) != len(self.benchmarks):
                raise ValueError("a benchmark is named twice")
            if "mean" in self.benchmarks:
                raise ValueError("'mean' is the mean over the benchmarks, no benchmark")
        return self


class H3b(_Gain):
    """Treatment gains on one group of benchmarks (reasoning), and more than on another."""

    margin: Margin = Field(
        0.0, description="What the contrast of the two groups must exceed, percentage points."
    )

    reasoning: list[Name] = Field(
        default=["mmlu", "gsm8k"],
        min_length=1,
        description="Where the effect is said to be larger.",
    )
    generation: list[Name] = Field(
        default=["humaneval"], min_length=1, description="Where it is said to be smaller."
    )

    @model_validator(mode="after")
    def _disjoint(self) -> H3b:
        both = sorted(set(self.reasoning) & set(self.generation))
        if both:
            raise ValueError(f"{both[0]} is in both groups of benchmarks")
        return self


class R1(_Contrast):
    """The effect depends on the task's language and the model (two-sided)."""

    alpha: Probability = Field(0.05, description="Level of the tests, two-sided.")
    small: Name | None = Field(None, description="Default: h3a's.")
    large: Name | None = Field(None, description="Default: h3a's.")
    languages: dict[str, Name] = Field(
        default={"humaneval": "en", "gsm8k": "en", "mmlu": "en", "kobest": "ko"},
        description="Benchmark -> language; others are left out.",
    )
    first: Name = Field("ko", description="The contrast is first minus second.")
    second: Name = Field("en", description="The language that `first` is compared with.")


class Rq1(_Section):
    """The conditions differ (analysis of variance)."""

    alpha: Probability = Field(0.05, description="Level of the tests, two-sided.")
    conditions: list[Name] | None = Field(
        None, min_length=2, description="Default: the study's conditions (ablations excluded)."
    )


class Efficiency(_Contrast):
    """Steps, FLOPs and seconds to the control's final score."""

    smooth: Literal["isotonic", "none"] = Field(
        "isotonic",
        description="How a run's learning curve is smoothed before a score is looked up.",
    )


class Ablations(_Section):
    """Each ablated condition against the full one."""

    full: Name = Field("zpd", description="The condition that each ablation is compared with.")
    alpha: Probability = Field(0.05, description="Level of the tests, two-sided.")
    prefix: Name = Field("zpd_", description="Conditions that start so are ablations.")
    conditions: list[Name] | None = Field(None, min_length=1, description="Overrides `prefix`.")


class Ladder(_Gain):
    """The gain grows with the logarithm of the parameters, and the largest model gains."""

    margin: Margin = Field(
        0.0, description="What the slope must exceed, points for ten times the parameters."
    )

    parameters: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Model -> number of parameters; at least three."
    )


class Hypotheses(_Section):
    """All pre-registered hypotheses. `h3a` is the one that the grid exists for (two models)."""

    h3a: H3a | None = None
    h3b: H3b = H3b()
    r1: R1 = R1()
    rq1: Rq1 = Rq1()
    efficiency: Efficiency = Efficiency()
    ablations: Ablations = Ablations()
    ladder: Ladder = Ladder()
    registered: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{12,64}$",
        description="Digest that zpdbench register gave before the runs (or its first 12 or more "
        "digits). Results under another digest are marked exploratory.",
    )
    _grid: dict[str, list[str]] = PrivateAttr(default_factory=dict)
    _design: dict[str, Any] = PrivateAttr(default_factory=dict)
    _forms: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _follow_h3a(cls, value: Any) -> Any:
        """Conditions that a hypothesis does not name are h3a's."""
        if not isinstance(value, Mapping) or not isinstance(value.get("h3a"), Mapping):
            return value
        filled = dict(value)
        given = {k: v for k, v in value["h3a"].items() if k in ("treatment", "control")}
        for name in ("h3b", "r1", "efficiency", "ladder"):
            section = filled.get(name, {})
            if isinstance(section, Mapping):
                filled[name] = {**given, **section}
        section = filled.get("ablations", {})
        if isinstance(section, Mapping) and "treatment" in given:
            filled["ablations"] = {"full": given["treatment"], **section}
        return filled

    def resolve(
        self,
        *,
        models: Sequence[str] | None = None,
        conditions: Sequence[str] | None = None,
        benchmarks: Sequence[str] | None = None,
        parameters: Mapping[str, float] | None = None,
        design: Mapping[str, Any] | None = None,
        forms: Mapping[str, str] | None = None,
    ) -> Hypotheses:
        """These hypotheses with what they leave to the study filled in, for a stable digest.

        Args:
            models, conditions, benchmarks: names of the study's; None: not known.
            parameters: model -> number of parameters, where the models say it.
            design: what decides which runs there are and what they are asked (`Study.design`).
            forms: benchmark -> how it is asked; tables say it, the digest does not have it.
        """
        h3a, r1, rq1 = self.h3a, self.r1, self.rq1
        ablations, ladder = self.ablations, self.ladder
        if h3a is not None:
            if h3a.benchmarks is None and benchmarks:
                h3a = h3a.model_copy(update={"benchmarks": list(benchmarks)})
            r1 = r1.model_copy(
                update={"small": r1.small or h3a.small, "large": r1.large or h3a.large}
            )
        if conditions:
            if ablations.conditions is None:
                found = [
                    c for c in conditions if c.startswith(ablations.prefix) and c != ablations.full
                ]
                ablations = ablations.model_copy(update={"conditions": found})
            if rq1.conditions is None:
                rest = [c for c in conditions if c not in (ablations.conditions or [])]
                rq1 = rq1.model_copy(update={"conditions": rest})
        if not ladder.parameters and parameters:
            ladder = ladder.model_copy(update={"parameters": dict(parameters)})
        update = {"h3a": h3a, "r1": r1, "rq1": rq1, "ablations": ablations, "ladder": ladder}
        resolved = self.model_copy(update=update)
        resolved._grid = {
            name: sorted(names)
            for name, names in (("models", models), ("benchmarks", benchmarks))
            if names
        }
        resolved._design = dict(design or {})
        resolved._forms = dict(forms or {})
        return resolved

    def asked_as(self, benchmark: str | None, among: Iterable[str | None] = ()) -> str | None:
        """The form that a benchmark is asked in; of a row that is none's, those of `among`.

        None where the configuration does not say it.
        """
        if benchmark in self._forms:
            return self._forms[benchmark]
        found = {self._forms[b] for b in among if b in self._forms} or {*self._forms.values()}
        return "+".join(sorted(found)) or None

    def unknown_name(
        self, models: Collection[str], conditions: Collection[str], benchmarks: Collection[str]
    ) -> tuple[str, str] | None:
        """The first name that the study does not have: its key, and what is wrong; else None.

        The defaults are no mistake where the study lacks them: then a hypothesis does not apply
        (`inapplicable`).
        """
        known = {"models": models, "conditions": conditions, "benchmarks": benchmarks}
        for key, kind, names in self._names():
            default = _DEFAULTS.get(key, ())
            for name in names:
                if name not in known[kind] and name not in default:
                    return f"hypotheses.{key}", f"no {kind[:-1]} {name!r} under {kind}"
        r1 = self.r1
        spoken = {r1.languages[b] for b in benchmarks if b in r1.languages}
        for end in ("first", "second"):
            language = getattr(r1, end)
            if language not in spoken and language not in ("ko", "en"):
                return f"hypotheses.r1.{end}", f"no benchmark in language {language!r}"
        return None

    def _names(self) -> list[tuple[str, str, Sequence[str]]]:
        """Every name that stands in a hypothesis: key, kind and names."""
        found: list[tuple[str, str, Sequence[str]]] = []
        for section in ("h3a", "h3b", "r1", "efficiency", "ladder"):
            h = getattr(self, section)
            if h is not None:
                found += [(f"{section}.{r}", "conditions", [getattr(h, r)]) for r in _PAIR]
        for section, h in (("h3a", self.h3a), ("r1", self.r1)):
            for role in ("small", "large"):
                if h is not None and getattr(h, role):
                    found.append((f"{section}.{role}", "models", [getattr(h, role)]))
        if self.h3a is not None:
            found.append(("h3a.benchmarks", "benchmarks", self.h3a.benchmarks or []))
        found += [
            ("h3b.reasoning", "benchmarks", self.h3b.reasoning),
            ("h3b.generation", "benchmarks", self.h3b.generation),
            ("r1.languages", "benchmarks", list(self.r1.languages)),
            ("rq1.conditions", "conditions", self.rq1.conditions or []),
            ("ablations.full", "conditions", [self.ablations.full]),
            ("ablations.conditions", "conditions", self.ablations.conditions or []),
            ("ladder.parameters", "models", list(self.ladder.parameters)),
        ]
        # h3a's models and conditions come first, and are no default: the user named them.
        return sorted(found, key=lambda entry: not entry[0].startswith("h3a"))

    def inapplicable(
        self,
        name: str,
        *,
        models: Collection[str] | None = None,
        conditions: Collection[str] | None = None,
        benchmarks: Collection[str] | None = None,
    ) -> str:
        """Why a hypothesis cannot be looked at in a study; "" where it can.

        Args:
            name: h3b, r1, rq1 or efficiency.
            models, conditions, benchmarks: names of the study's; None: not known.
        """
        h = getattr(self, name)
        if conditions is not None:
            for role in _PAIR:
                wanted = getattr(h, role, None)
                if wanted is not None and wanted not in conditions:
                    return f"the study has no condition {wanted!r}"
        if name == "rq1" and conditions is not None:
            compared = h.conditions if h.conditions is not None else conditions
            if len(compared) < 2:
                return "the study has one condition only"
        if name == "h3b" and benchmarks is not None:
            for group in ("reasoning", "generation"):
                if not set(getattr(h, group)) & set(benchmarks):
                    return f"the study has no {group} benchmark ({', '.join(getattr(h, group))})"
        if name == "r1":
            resolved = self.resolve().r1
            if not (resolved.small and resolved.large):
                return "no two models are named (hypotheses.r1 or h3a: small, large)"
            if benchmarks is not None:
                for language in (h.first, h.second):
                    if not any(h.languages.get(b) == language for b in benchmarks):
                        return (
                            f"the study has no benchmark in language {language!r} "
                            "(hypotheses.r1.languages: {BENCHMARK: LANGUAGE})"
                        )
        return ""

    def digest(self) -> str:
        """SHA-256 of the hypotheses as they stand, `registered` itself excluded.

        Of `resolve`d ones: with the study's models, benchmarks, conditions and parameters and its
        design (seeds, items, training, decoding), so that none of them can be dropped or changed
        under the same digest; and with what becomes of runs that fail.
        """
        from zpdbench.files import digest

        value = self.model_dump(mode="json", exclude={"registered"})
        if value["h3a"] and value["h3a"]["benchmarks"]:
            value["h3a"]["benchmarks"].sort()
        for section in ("rq1", "ablations"):
            if value[section]["conditions"]:
                value[section]["conditions"].sort()
        return digest([value, self._grid, self._design, FAILED_RUNS])


FAILED_RUNS = (
    "a run that fails is run again with its own seed until it ends; while a seed lacks a run in "
    "either model it is left out of both, and the result is interim"
)
"""Part of every registration: no run may be dropped for how it came out."""
_PAIR = ("treatment", "control")
_DEFAULTS: dict[str, Collection[str]] = {
    **{
        f"{section}.{role}": [default]
        for section in ("h3b", "r1", "efficiency", "ladder")
        for role, default in zip(_PAIR, ("zpd", "random"), strict=True)
    },
    "h3b.reasoning": H3b().reasoning,
    "h3b.generation": H3b().generation,
    "r1.languages": R1().languages,
    "ablations.full": ["zpd"],
}
