"""The PyTorch reference, from a user's own checkout of FoundationVision/VAR: loaded, built and, for benchmarks, run.

None of its code is part of this package, and PyTorch is imported when used. As a process of its own, `python -m
var_jax.benchmark.reference_worker CHECKOUT` is driven by `beside`: lines of JSON come in, ["prepare", task], then
["run", null] and ["peak", null]; each gets a line {"value": ...} or {"error": ...}. A task names `what` ("sample",
"tokenize", "train" or "data"), the shapes of the models, threads and device. A call runs to its end, and its seconds
are measured here, so that they do not include the pipe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import itertools
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from var_jax.benchmark.machine import resident_peak
from var_jax.errors import InputError

Call = Callable[[], float]


def load_reference(checkout: str | os.PathLike[str]) -> types.SimpleNamespace:
    """Imports the reference's model builders and PyTorch: a namespace with `torch`, `VQVAE`, `VAR`.

    Raises:
      InputError: if the folder is no checkout of the reference or PyTorch is not installed.
    """
    root = Path(checkout).resolve()
    if not (root / "models" / "vqvae.py").is_file():
        raise InputError(f"{checkout}: not a checkout of FoundationVision/VAR (it has no models/vqvae.py)")
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch is not installed here: pip install torch to run the reference beside") from None
    if "huggingface_hub" not in sys.modules and importlib.util.find_spec("huggingface_hub") is None:
        # The reference only names its mixin; a stand-in saves the user an installation.
        stand_in = types.ModuleType("huggingface_hub")
        stand_in.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})
        sys.modules["huggingface_hub"] = stand_in
    sys.path.insert(0, str(root))
    try:
        vqvae, var = importlib.import_module("models.vqvae"), importlib.import_module("models.var")
    except ImportError as error:
        raise InputError(f"{checkout}: the reference cannot be imported ({error})") from None
    finally:
        sys.path.remove(str(root))
    return types.SimpleNamespace(torch=torch, VQVAE=vqvae.VQVAE, VAR=var.VAR)


# Arguments of the reference's classes -> fields of our configs.
_VAE = {"vocab_size": "codebook_size", "z_channels": "code_width", "ch": "base_channels", "quant_resi": "phi_ratio"}
_VAR = {
    **{"num_classes": "num_classes", "depth": "depth", "embed_dim": "width", "num_heads": "num_heads"},
    **{"mlp_ratio": "mlp_ratio", "drop_path_rate": "drop_path", "cond_drop_rate": "class_drop"},
    **{"shared_aln": "shared_adaln", "attn_l2_norm": "qk_norm"},
}


def build(
    reference: Any, tokenizer: Mapping[str, Any], transformer: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """Builds the autoencoder and, if there is one, the transformer of these configs, with weights drawn by PyTorch."""
    given = {theirs: tokenizer[ours] for theirs, ours in _VAE.items()}
    given |= {"share_quant_resi": tokenizer["num_phis"] or 0, "v_patch_nums": tuple(tokenizer["pyramid"])}
    with contextlib.redirect_stdout(io.StringIO()):  # both print
        vae = reference.VQVAE(**given, test_mode=True)
        if transformer is None:
            return vae, None
        given = {theirs: transformer[ours] for theirs, ours in _VAR.items()}
        var = reference.VAR(vae_local=vae, patch_nums=tuple(transformer["pyramid"]), **given)
    return vae, var.eval()


class Worker:
    """Answers requests: prepares one kind of call and runs it."""

    def __init__(self, checkout: str) -> None:
        self._checkout = checkout

    def prepare(self, task: dict[str, Any]) -> dict[str, str]:
        """Builds the models or batches of the task; returns the versions in use."""
        self._reference, self._task = load_reference(self._checkout), task
        self._torch = torch = self._reference.torch
        self._device = "cuda" if task["device"] == "gpu" else "cpu"
        torch.set_num_threads(task["threads"])
        torch.manual_seed(0)
        kinds = {"sample": self._sample, "tokenize": self._tokenize, "train": self._train, "data": self._data}
        self._call = kinds[task["what"]]()
        return {"torch": torch.__version__}

    def run(self, _: Any) -> float:
        """Makes one call; returns its seconds."""
        return self._call()

    def peak(self, _: Any) -> int:
        """Peak memory so far, in bytes."""
        cuda = self._torch.cuda
        return cuda.max_memory_allocated() if cuda.is_available() else resident_peak()

    def _sample(self) -> Call:
        task, (_, var) = self._task, self._models()
        labels = self._labels()
        chosen = {"cfg": task["guidance"], "top_k": task["top_k"], "top_p": task["top_p"]}

        def call() -> Any:
            with self._precision(), self._torch.inference_mode():
                return var.autoregressive_infer_cfg(task["batch"], labels, g_seed=0, **chosen)

        return self._timed(call)

    def _tokenize(self) -> Call:
        vae, pictures = self._models()[0], self._pictures()

        def call() -> Any:
            with self._torch.inference_mode():
                return vae.img_to_idxBl(pictures)

        return self._timed(call)

    def _train(self) -> Call:
        """A training step: tokens of pictures, teacher forcing, cross entropy, clipped AdamW, accuracy."""
        torch, (vae, var) = self._torch, self._models()
        var.train()
        vectors = [p for p in var.parameters() if p.ndim <= 1]
        matrices = [p for p in var.parameters() if p.ndim > 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
        pictures, labels = self._pictures(), self._labels()

        def call() -> Any:
            with torch.no_grad():
                parts = vae.img_to_idxBl(pictures)
                inputs = vae.quantize.idxBl_to_var_input(parts)
                tokens = torch.cat(parts, dim=1)
            with self._precision():
                logits = var(labels, inputs)
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(matrices + vectors, 2.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return (logits.detach().argmax(dim=-1) == tokens).float().mean()

        return self._timed(call)

    def _data(self) -> Call:
        """Turns of a given number of batches from a DataLoader; batches ready before a turn are not counted."""
        task, torch = self._task, self._torch
        if task["workers"]:
            torch.set_num_threads(1)
        batches = iter(
            torch.utils.data.DataLoader(
                PictureFiles(task["files"], task["size"], task["shorter"]),
                batch_size=task["batch"],
                sampler=EndlessOrder(len(task["files"])),
                num_workers=task["workers"],
            )
        )
        return lambda: turn(batches, task["ready"], task["batches"])

    def _models(self) -> list[Any]:
        """The autoencoder and, if the task has one, the transformer."""
        models = build(self._reference, self._task["tokenizer"], self._task.get("transformer"))
        return [model and model.to(self._device) for model in models]

    def _pictures(self) -> Any:
        side = 16 * self._task["tokenizer"]["pyramid"][-1]
        return self._torch.rand(self._task["batch"], 3, side, side, device=self._device) * 2 - 1

    def _labels(self) -> Any:
        return self._torch.arange(self._task["batch"], device=self._device) % self._task["transformer"]["num_classes"]

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        narrow = self._task["dtype"] == "bfloat16"
        return self._torch.autocast(self._device, dtype=self._torch.bfloat16, enabled=narrow)

    def _timed(self, call: Callable[[], Any]) -> Call:
        def run() -> float:
            since = time.perf_counter()
            call()
            if self._torch.cuda.is_available():
                self._torch.cuda.synchronize()
            return time.perf_counter() - since

        return run


def turn(batches: Iterator[Any], ready: int, count: int) -> float:
    """Seconds of `count` batches after the `ready` ones that may have been made before the turn."""
    for _ in range(ready):
        next(batches)
    since = time.perf_counter()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - since


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """Files as a map-style PyTorch data set: shorter side scaled by Lanczos, a random square, uint8 [H, W, 3]."""

    files: list[str]
    size: int
    shorter: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        import torch
        from PIL import Image

        rng = np.random.default_rng()
        with Image.open(self.files[index]) as file:
            picture = file.convert("RGB")
        scale = self.shorter / min(picture.size)
        width, height = (max(self.shorter, int(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        left, top = (int(rng.integers(side - self.size + 1)) for side in picture.size)
        square = picture.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.array(square))


@dataclasses.dataclass(frozen=True)
class EndlessOrder:
    """Endless indices, shuffled anew in every pass."""

    count: int

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        return itertools.chain.from_iterable(rng.permutation(self.count).tolist() for _ in itertools.count())


def main() -> None:
    """Answers requests until the input ends."""
    worker, answers = Worker(sys.argv[1]), sys.stdout
    for line in sys.stdin:
        verb, argument = json.loads(line)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # whatever the reference prints
                answer = {"value": getattr(worker, verb)(argument)}
        except InputError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
