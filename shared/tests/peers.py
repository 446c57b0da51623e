"""The network that ours is compared with: GPT-2 in Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from shared.gpt import GPTConfig


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
