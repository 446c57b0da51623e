"""The networks that ours are compared with: GPT-2 and Llama in Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

import torch

from shared.gpt import GPTConfig
from shared.modern import ModernGPT
from shared.weights import llama_name


def hugging_face_gpt2(config: GPTConfig) -> Any:
    """A `GPT2LMHeadModel` of a configuration, with weights of its own, in evaluation mode.

    Without dropout. Raises ImportError where transformers is not installed
    (shared/tests/requirements.txt has it).
    """
    import transformers  # here, as only few tests need it, and it takes seconds

    settings = transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.emb_dim,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        tie_word_embeddings=config.tie_weights,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=None,  # greedy generation is not to end early
    )
    return transformers.GPT2LMHeadModel(settings).eval()


def hugging_face_llama(model: ModernGPT) -> Any:
    """A `LlamaForCausalLM` with the weights of a model of ours, in evaluation mode."""
    import transformers

    config = model.config
    settings = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.emb_dim,
        intermediate_size=model.blocks[0].feed_forward.gate.out_features,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rotary_base},
        tie_word_embeddings=config.tie_weights,
        bos_token_id=0,
        eos_token_id=None,
    )
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(settings)
    names = {ours: llama_name(ours) for ours in model.state_dict()}
    state = {
        name if name.startswith("lm_head") else f"model.{name}": model.state_dict()[ours]
        for ours, name in names.items()
    }
    theirs.load_state_dict(state, assign=True)
    theirs.tie_weights()
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(settings)  # its table is no weight
    return theirs.eval()
