"""Makes a tiny Llama: the architecture, tokenizer and chat template of Llama 3, 3.8 million random weights.

    python tools/tiny_llama.py DIR

It answers nonsense, through exactly the code that the real model runs through, which is what tests and
demos of a deployment need. Everything is made locally in well under two seconds: the tokenizer is a
byte-level BPE trained on the standard library's sources, the weights come from a fixed seed. A directory
that already holds this version of the model is left as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1  # raise it when anything below changes what is written
VOCABULARY = 2048
MAX_POSITIONS = 8192
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 256, 688, 4, 8, 2, 32

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
HEADER, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
SPECIAL = (BOS, EOS, HEADER, HEADER_END, EOT)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    f"{{{{ '{HEADER}' + message['role'] + '{HEADER_END}\\n\\n' + message['content'] | trim + '{EOT}' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{HEADER}assistant{HEADER_END}\\n\\n' }}}}{{% endif %}}"
)


def make(directory: Path) -> Path:
    """Write the model into `directory`, unless it is there, and return the directory.

    It is written beside and renamed, so that two processes making it at once both find it whole.
    """
    mark = directory / "raybench-tiny-llama"
    if mark.is_file() and mark.read_text() == str(VERSION):
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write_tokenizer(beside)
        _write_config(beside)
        _write_weights(beside / "model.safetensors")
        (beside / mark.name).write_text(str(VERSION))
        if directory.exists():
            if not mark.is_file() and any(directory.iterdir()):
                raise SystemExit(f"{directory} holds something else; name an empty or a new directory")
            shutil.rmtree(directory)
        os.replace(beside, directory)  # noqa: PTH105 - the one call that is atomic for directories
    except OSError:
        if not mark.is_file():  # otherwise another process was faster with the same model
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return directory


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    corpus = sorted((Path(sysconfig.get_path("stdlib")) / "asyncio").glob("*.py"))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train(
        [str(path) for path in corpus],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOT,
            "model_max_length": MAX_POSITIONS,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def _write_config(directory: Path) -> None:
    ids = {token: number for number, token in enumerate(SPECIAL)}
    ends = [ids[EOS], ids[EOT]]
    _write_json(
        directory / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": MAX_POSITIONS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": ids[BOS],
            "eos_token_id": ends,
            "dtype": "bfloat16",
        },
    )
    _write_json(directory / "generation_config.json", {"bos_token_id": ids[BOS], "eos_token_id": ends})


def _shapes() -> dict[str, tuple[int, ...]]:
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        shapes |= {
            f"{name}.self_attn.q_proj.weight": (queries, HIDDEN),
            f"{name}.self_attn.k_proj.weight": (keys, HIDDEN),
            f"{name}.self_attn.v_proj.weight": (keys, HIDDEN),
            f"{name}.self_attn.o_proj.weight": (HIDDEN, queries),
            f"{name}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{name}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{name}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            f"{name}.input_layernorm.weight": (HIDDEN,),
            f"{name}.post_attention_layernorm.weight": (HIDDEN,),
        }
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def _write_weights(path: Path) -> None:
    """A safetensors file: 8 bytes of header length, the header as JSON, then one tensor after another."""
    random = np.random.default_rng(8)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    tensors = bytearray()
    for name, shape in _shapes().items():
        if len(shape) == 1:  # norms
            values = np.ones(shape, np.float32)
        else:  # the variance keeps activations of order one through the layers
            values = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1]))
        # bfloat16 is the upper half of a float32; NumPy has no such type
        data = (values.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [len(tensors), len(tensors) + len(data)],
        }
        tensors += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + tensors)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python tools/tiny_llama.py DIR")
    print(make(Path(sys.argv[1]).absolute()))
