"""Model folders as users bring them, each with one thing wrong: a folder in place, then a harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Harm = Callable[[Path], object]
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 268435456\n".format("0" * 64)


def pointer(name: str) -> Harm:
    """Return the harm of a clone without Git LFS."""
    return lambda folder: (folder / name).write_text(LFS)


def edit(name: str, change: Callable[[Any], object]) -> Harm:
    """Return the harm of a change to a JSON file."""

    def harm(folder: Path) -> None:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        changed = change(value)
        (folder / name).write_text(json.dumps(value if changed is None else changed))

    return harm


def configure(**values: object) -> Harm:
    """Return the harm of other settings in config.json."""
    return edit("config.json", lambda config: config.update(values))


def weigh(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Harm:
    """Return the harm of other tensors."""

    def harm(folder: Path) -> None:
        tensors = change(load_file(folder / WEIGHTS))
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return harm


def prefix(text: str) -> Harm:
    """Return the harm of a prefix before every tensor's name."""
    return weigh(lambda tensors: {f"{text}{name}": t for name, t in tensors.items()})


def without(part: str) -> Harm:
    """Return the harm of tensors that are missing."""
    return weigh(lambda tensors: {n: t for n, t in tensors.items() if part not in n})


def remove(*patterns: str) -> Harm:
    """Return the harm of files that are missing."""

    def harm(folder: Path) -> None:
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()

    return harm


def rename(old: str, new: str) -> Harm:
    """Return the harm of a file under another name."""
    return lambda folder: (folder / old).rename(folder / new)


def cut(name: str, share: float) -> Harm:
    """Return the harm of a file that was cut off."""

    def harm(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return harm


def fill(name: str, content: bytes) -> Harm:
    """Return the harm of a file with another content."""
    return lambda folder: (folder / name).write_bytes(content)


def shard(folder: Path) -> None:
    """Lay the weights in two files with an index."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    for file, chosen in parts.items():
        save_file({n: tensors[n] for n in chosen}, folder / file, {"format": "pt"})
    index = {name: file for file, chosen in parts.items() for name in chosen}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / WEIGHTS).unlink()


def sharded(harm: Harm) -> Harm:
    """Return a harm of weights that lie in two files."""

    def both(folder: Path) -> None:
        shard(folder)
        harm(folder)

    return both


def row_more(name: str) -> Harm:
    """Return the harm of a tensor with a row more than config.json says."""
    return weigh(lambda t: t | {name: torch.cat([t[name], t[name][:1]])})


def spoil(value: float) -> Harm:
    """Return the harm of a weight that is no number."""

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = value
        return tensors

    return weigh(change)


def pack(folder: Path) -> None:
    """Quantise the weights as GPTQ does, and leave config.json as it was."""
    weigh(
        lambda tensors: {
            name.replace(".weight", ".qweight") if "proj" in name else name: (
                torch.zeros(2, 16, dtype=torch.int32) if "proj" in name else t
            )
            for name, t in tensors.items()
        }
    )(folder)


def eight_bit(folder: Path) -> None:
    """Hold the weights in eight bits, and leave config.json as it was."""
    weigh(
        lambda tensors: {
            n: t.to(torch.float8_e4m3fn) if "proj" in n else t for n, t in tensors.items()
        }
    )(folder)


def adapter(folder: Path) -> None:
    """Leave a LoRA adapter in place of the model, as peft saves one."""
    remove("*")(folder)
    described = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    save_file(
        {"base_model.model.a.lora_A.weight": torch.ones(1)}, folder / "adapter_model.safetensors"
    )


def quantised(method: str, **more: object) -> Harm:
    """Return the harm of a checkpoint that its config.json calls quantised."""
    return configure(quantization_config={"quant_method": method, **more})
