"""Attributes that any Hugging Face config.json may hold, whatever the family."""

from typing import Any

HUGGING_FACE_FIXED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
}
"""Attribute -> values under which one stack of layers is computed; written on export."""

HUGGING_FACE_REFUSED = {
    "quantization_config": "quantised weights are not read; use the original float weights",
    "auto_map": "names code of its own, which is never run; use a folder of a known family",
    "pruned_heads": "pruned attention heads are not supported",
    "adapters": "adapters are not merged in; merge them with the library that made them",
}
"""Attribute -> why it is refused, unless it is null or empty."""

HUGGING_FACE_LABELS = ("id2label", "label2id", "num_labels", "_num_labels", "problem_type")
"""Describe a classification head; checked where that head is used."""

HUGGING_FACE_IGNORED = frozenset(
    {
        # Handled for all families in one place: source_config.py.
        "architectures", "model_type", "jaxrank", "classifier_dropout",
        "sentence_transformers", "sbert_ce_default_activation_function",
        *HUGGING_FACE_REFUSED, *HUGGING_FACE_LABELS,
        # Where the file comes from, and what it was stored in.
        "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype",
        "finetuning_task", "transformers.js_config", "_commit_hash",
        # What a forward pass also returns, how it is run, or only for training and generation.
        "output_attentions", "output_hidden_states", "return_dict", "torchscript", "use_cache",
        "gradient_checkpointing", "_attn_implementation_autoset", "tie_word_embeddings",
        "chunk_size_feed_forward",
        # Token ids: the tokenizer has them too, and the embedding of a pad is never looked at.
        "pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id",
    }
)  # fmt: skip
"""Attributes that change nothing of what is computed here, or are read elsewhere."""

HUGGING_FACE_GENERATION = frozenset(
    {
        "task_specific_params", "prefix", "max_length", "min_length", "do_sample", "early_stopping",
        "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p",
        "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores",
        "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
        "force_bos_token_to_be_generated", "remove_invalid_values", "suppress_tokens",
        "begin_suppress_tokens", "exponential_decay_length_penalty",
    }
)  # fmt: skip
"""How a model that also writes text is asked to: nothing that a score depends on."""

OTHER_HEAD = "head of another kind than the one asked for"
"""Why a table passes over the tensors of a head that is not its own."""
