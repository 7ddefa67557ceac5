"""A model out of a GGUF file, dequantised: what transformers reads, and proof that it read all.

transformers passes in silence over tensors and keys that it does not know, a scaled rotation or a
window say, and then answers otherwise than the model. Here every tensor must have been used and
every statement of the header about the model must be true of the configuration made of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zpdbench.checkpoints.gguf_header import CONTROL, Header
from zpdbench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FOLDER = "give the model as a safetensors folder"

_ENDS = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<|eom_id|>", "<EOT>", "_<EOT>", "<|eot|>", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
}  # fmt: skip
"""Control tokens that end an answer by their name alone, as llama.cpp takes them (llama-vocab.cpp):
a file names one end token, where its makers' generation_config.json has two, a turn's and a text's.
"""

_NO_STATEMENT = {"block_count", "vocab_size", "expert_feed_forward_length"}
"""Keys of a model that are compared with the tensors instead, or only repeat their shapes."""


def load(header: Header) -> PreTrainedModel:
    """The model in float32, to be saved or made deeper (its rotation tables are not filled in).

    Its generation configuration names every end token. A model loaded from GGUF cannot be saved as
    it is: its weights are put into a fresh one.

    Raises:
        UserError: transformers cannot read the file, or not all of it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder, file = header.path.parent, header.path.name
    try:
        config = AutoConfig.from_pretrained(folder, gguf_file=file)
        _rotate_as_said(header, config)
        _check_statements(header, config)
        with torch.device("meta"):
            fresh = AutoModelForCausalLM.from_config(_fresh_config(config), dtype=torch.float32)
        _check_tensors(header, fresh)
        read: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, config=config, dtype=torch.float32, output_loading_info=True
        )
    except UserError:
        raise
    except Exception as error:  # transformers and gguf raise many kinds for one bad file
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"transformers cannot read this GGUF file ({said})",
            where=str(header.path),
            fix=f"get the file again, or {_FOLDER}",
        ) from error
    loaded, told = read
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if wrong := sorted(map(str, told[kind])):
            raise UserError(
                f"transformers reads not all of its weights ({kind.replace('_', ' ')}: {wrong[0]})",
                where=str(header.path),
                fix=f"get another conversion of the model, or {_FOLDER}",
            )
    model: PreTrainedModel = fresh
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = end_ids(header)
    return model.eval()


def end_ids(header: Header) -> list[int]:
    """Ids that end an answer: the file's own, then control tokens that llama.cpp knows as ends."""
    tokens, kinds = header.of_tokenizer("tokens"), header.of_tokenizer("token_type") or []
    named = [header.of_tokenizer(f"{key}_token_id") for key in ("eos", "eot", "eom")]
    known = [
        place
        for place, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind == CONTROL and token in _ENDS
    ]
    return list(dict.fromkeys(id_ for id_ in [*named, *known] if id_ is not None))


def _fresh_config(config: Any) -> Any:
    """`config` as it is saved: nothing of GGUF, and each size by its common name too (GPT-2's)."""
    fields = config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path", "architectures"):
        fields.pop(name, None)
    fields["dtype"] = "float32"
    made = type(config)(**fields)
    for common, own in made.attribute_map.items():
        if common not in fields and hasattr(made, own):
            made.__dict__.setdefault(common, getattr(made, own))
    return made


def _rotate_as_said(header: Header, config: Any) -> None:
    """Give the rotation the file's base, which transformers does not read of StarCoder 2."""
    rope, base = getattr(config, "rope_parameters", None), header.of_model("rope.freq_base")
    if rope and "rope_theta" in rope and isinstance(base, float):
        rope["rope_theta"] = base


def _check_tensors(header: Header, model: PreTrainedModel) -> None:
    """Check that each tensor has its parameter, of as many values.

    Raises:
        UserError: the first that has not.
    """
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    known = get_gguf_hf_weights_map(model, processor(config=model.config.to_dict()))
    parameters = model.state_dict()
    used: dict[str, int] = {}
    for name, shape in header.tensors.items():
        # Experts' weights are parameters of their own, without a layer's `.weight`.
        parameter = known.get(name) or known.get(name.removesuffix(".weight"))
        if parameter is None:
            raise UserError(
                f"tensor {name[:60]!r} is not read by transformers: the model would answer "
                "otherwise",
                where=str(header.path),
                fix=_FOLDER,
            )
        used[parameter] = used.get(parameter, 0) + math.prod(shape)
    for name, values in used.items():
        if name in parameters and parameters[name].numel() != values:
            raise UserError(
                f"{values:,} values for {name}, which has {parameters[name].numel():,} by its "
                "header's numbers",
                where=str(header.path),
                fix="get the file again",
            )


def _check_statements(header: Header, config: Any) -> None:
    """Check what the header says of the model against the configuration that was made of it.

    Raises:
        UserError: the first statement that is not kept, or that is not known here.
    """
    prefix = f"{header.architecture}."
    true = _statements(config)
    for key, said in sorted(header.fields.items()):
        name = key.removeprefix(prefix)
        if name == key or name in _NO_STATEMENT:
            continue
        if name not in true:
            raise UserError(
                f"{key} = {str(said)[:40]} is not read by transformers: the model would answer "
                "otherwise",
                where=str(header.path),
                fix=_FOLDER,
            )
        if not any(_equal(said, value) for value in true[name]):
            shown = " or ".join(str(value)[:40] for value in true[name])
            raise UserError(
                f"{key} is {str(said)[:40]}, and the model that transformers makes has {shown}",
                where=str(header.path),
                fix=_FOLDER,
            )


def _statements(config: Any) -> dict[str, tuple[Any, ...]]:
    """Key of a GGUF header, less its architecture -> what it may say of a model so configured."""

    def own(*names: str) -> Any:
        return next((v for n in names if (v := getattr(config, n, None)) is not None), None)

    hidden, heads = own("hidden_size"), own("num_attention_heads")
    head = own("head_dim") or hidden // heads
    kv_heads = own("num_key_value_heads", "num_kv_heads") or heads
    layers = own("num_hidden_layers")
    eps = own("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps", "norm_epsilon")
    positions = own("max_position_embeddings", "n_positions")
    feed = own("intermediate_size", "n_inner", "ffn_hidden_size") or 4 * hidden
    rope = getattr(config, "rope_parameters", None) or {}
    # Gemma 3 turns its windowed layers by another base, which a GGUF file does not say.
    rope = rope.get("full_attention", rope)
    share = rope.get("partial_rotary_factor") or own("partial_rotary_factor") or 1.0
    scaled = rope.get("rope_type", "default") != "default"
    window = own("sliding_window") if getattr(config, "use_sliding_window", True) else None
    experts = (own("num_experts", "num_local_experts"), own("num_experts_per_tok"))
    plain = {} if scaled else {"rope.scaling.type": ("none",), "rope.scaling.factor": (0.0, 1.0)}
    return plain | {
        "context_length": (positions,) if positions is not None else (own("seq_length"), 2048),
        "embedding_length": (hidden,),
        "feed_forward_length": (feed, [feed] * layers),
        "attention.head_count": (heads, [heads] * layers),
        "attention.head_count_kv": (kv_heads, [kv_heads] * layers, _by_layer(config, kv_heads)),
        "attention.key_length": (head,),
        "attention.value_length": (head,),
        "attention.layer_norm_rms_epsilon": (eps,),
        "attention.layer_norm_epsilon": (eps,),
        "attention.sliding_window": (window,) if window is not None else (0, positions),
        "attention.causal": (True,),
        "attn_logit_softcapping": (own("attn_logit_softcapping"),),
        "final_logit_softcapping": (own("final_logit_softcapping"),),
        "rope.freq_base": (rope.get("rope_theta", 10000.0),),
        "rope.dimension_count": (int(head * share),),
        "rope.scaling.original_context_length": (positions,),
        "expert_count": (experts[0] or 0,),
        "expert_used_count": (experts[1] or 0,),
        "expert_shared_feed_forward_length": (own("shared_expert_intermediate_size"),),
        "use_parallel_residual": (own("use_parallel_residual"),),
        "shortconv.l_cache": (own("conv_L_cache"),),
        "tensor_data_layout": ("Meta AI original pth", "jploski"),
    }


def _by_layer(config: Any, kv_heads: int) -> list[int]:
    kinds = getattr(config, "layer_types", None) or []
    return [kv_heads if kind == "full_attention" else 0 for kind in kinds]


def _equal(said: Any, value: Any) -> bool:
    if isinstance(said, float) and isinstance(value, (int, float)):
        return math.isclose(said, value, rel_tol=1e-6)  # a float32 of the file
    return bool(said == value)
