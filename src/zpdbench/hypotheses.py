"""The pre-registered hypotheses: the `hypotheses` section of a study's configuration.

Only pydantic is imported, so that the study model below the libraries can use these classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
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

    small: float
    large: float


class ClaimedRange(_Section):
    """A claimed range, in per cent, for each of the two models."""

    small: tuple[float, float]
    large: tuple[float, float]

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
    treatment: Name = "zpd"
    control: Name = "random"
    alpha: Probability = Field(0.05, description="Level of the one-sided test.")

    @model_validator(mode="after")
    def _different_conditions(self) -> Any:
        if self.treatment == self.control:
            raise ValueError("treatment and control are the same condition")
        return self


class H3a(_Contrast):
    """The effect of treatment over control is larger in the larger model."""

    small: Name = Field(description="Name of the smaller model.")
    large: Name = Field(description="Name of the larger model.")
    side: Literal["larger", "smaller"] = Field(
        "larger", description="Pre-registered direction of the large model's effect."
    )
    margin: float = Field(
        0.0,
        description="Smallest difference of interest, percentage points, in the direction of "
        "`side`: the hypothesis is contradicted when the one-sided bound lies below it.",
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


class H3b(_Contrast):
    """The effect is larger on one group of benchmarks (reasoning) than on another."""

    reasoning: list[Name] = Field(default=["mmlu", "gsm8k"], min_length=1)
    generation: list[Name] = Field(default=["humaneval"], min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> H3b:
        both = sorted(set(self.reasoning) & set(self.generation))
        if both:
            raise ValueError(f"{both[0]} is in both groups of benchmarks")
        return self


class R1(_Contrast):
    """The effect depends on the task's language and the model (two-sided)."""

    small: Name | None = Field(None, description="Default: h3a's.")
    large: Name | None = Field(None, description="Default: h3a's.")
    languages: dict[str, Name] = Field(
        default={"humaneval": "en", "gsm8k": "en", "mmlu": "en", "kobest": "ko"},
        description="Benchmark -> language; others are left out.",
    )
    first: Name = Field("ko", description="The contrast is first minus second.")
    second: Name = "en"


class Rq1(_Section):
    """The conditions differ (analysis of variance)."""

    alpha: Probability = 0.05
    conditions: list[Name] | None = Field(
        None, min_length=2, description="Default: the study's conditions (ablations excluded)."
    )


class Efficiency(_Contrast):
    """Steps, FLOPs and seconds to the control's final score."""

    smooth: Literal["isotonic", "none"] = "isotonic"


class Ablations(_Section):
    """Each ablated condition against the full one."""

    full: Name = "zpd"
    alpha: Probability = 0.05
    prefix: Name = Field("zpd_", description="Conditions that start so are ablations.")
    conditions: list[Name] | None = Field(None, min_length=1, description="Overrides `prefix`.")


class Ladder(_Contrast):
    """Regression of the effect on the logarithm of the number of parameters."""

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
        description="Digest of these hypotheses as pre-registered (or its first 12 or more "
        "digits). Results under another digest are marked exploratory.",
    )

    def digest(self) -> str:
        """SHA-256 of the hypotheses as they stand, `registered` itself excluded."""
        from zpdbench.files import digest

        return digest(self.model_dump(mode="json", exclude={"registered"}))
