"""How a benchmark is asked: as plain text, or by the model's chat template."""

from __future__ import annotations

PLAIN, CHAT, CHAT_ONE_TURN = "plain", "chat", "chat-one-turn"
"""Names of the forms, as tables show them: lm-evaluation-harness 0.4.13's default, its
apply_chat_template with fewshot_as_multiturn, and without (all shots in the question's turn)."""


def name(*, apply_chat_template: bool, fewshot_as_multiturn: bool) -> str:
    """The name of a form."""
    if not apply_chat_template:
        return PLAIN
    return CHAT if fewshot_as_multiturn else CHAT_ONE_TURN
