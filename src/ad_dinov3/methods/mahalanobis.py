"""Mahalanobis distance of filter responses: a classical baseline that needs neither weights nor training.

Every pixel is described by a small bank of filters; a pixel is anomalous as far as its responses are unlikely under the
mean and covariance of its own image. Not in the paper: it stands beside every table of ours. The idea is
the global RX detector (Reed and Yu, 1990), with filter responses in place of spectral bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import MahalanobisConfig
from ad_dinov3.encoders.pixels import PIXELS, PixelEncoder
from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.methods.head import Built, Head, Parts
from ad_dinov3.ops import top_mean
from ad_dinov3.types import Features, Scores

SIGMAS_PX = (1.0, 2.0, 4.0, 8.0)
FILTERS_PER_SIGMA = 4
_RIDGE = 1e-6  # added to the covariance, grey values in [0, 1]; a flat image stays invertible
_TOP_FRACTION = 0.01  # of the map, which the image score averages


class Mahalanobis(Head):
    """The map of each image at the input's size; features are those of ``PixelEncoder``.

    Args:
        config: the switches.
    """

    def __init__(self, config: MahalanobisConfig) -> None:
        super().__init__()
        self.config = config

    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps and image scores of B images; class names do not matter here."""
        pixels = features.patch_tokens[0]  # (B, H, W, 3)
        maps = [distance_map(one.mean(axis=2), self.config.sigma_px) for one in pixels.cpu().numpy()]
        patch_map = torch.from_numpy(np.stack(maps)).to(pixels.device)  # (B, H, W)
        return Scores(patch_map, top_mean(patch_map, _TOP_FRACTION))


def mahalanobis_map(image: NDArray[np.uint8], size_px: int = 256, sigma_px: float = 3.0) -> NDArray[np.float32]:
    """Anomaly map (H, W) in [0, 1) of one grey (H, W) or RGB (H, W, 3) uint8 image.

    The image is averaged to grey and resized to a square of ``size_px``, and the map of that is resized back.

    Raises:
        ShapeError: neither (H, W) nor (H, W, 3).
    """
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        raise ShapeError(f"expected a grey (H, W) or an RGB (H, W, 3) image, got {image.shape}")
    grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    height, width = grey.shape
    return np.maximum(_resized(distance_map(_resized(grey, size_px, size_px), sigma_px), height, width), 0)


def distance_map(grey: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Anomaly map (h, w) in [0, 1) of grey values (h, w) in [0, 255].

    Distances d are smoothed by a Gaussian and shown as d / (d + d0), where d0 is the root-mean-square distance that any
    image has. That changes no ranking, and 0.5 is an ordinary pixel.
    """
    responses = filter_responses(grey.astype(np.float64) / 255)  # (h, w, 16)
    distance = ndimage.gaussian_filter(own_distance(responses), sigma_px)
    ordinary = np.sqrt(responses.shape[-1])  # the mean of d^2 over an image is the number of responses
    shown: NDArray[np.float32] = (distance / (distance + ordinary)).astype(np.float32)
    return shown


def filter_responses(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """(h, w) in [0, 1] to (h, w, 16): mean, gradient magnitude, Laplacian and deviation at each of four scales."""
    planes = []
    for sigma in SIGMAS_PX:
        mean = ndimage.gaussian_filter(grey, sigma)
        # The variance is a small difference of large numbers, so rounding can take it below zero.
        variance = np.maximum(ndimage.gaussian_filter(grey * grey, sigma) - mean * mean, 0)
        planes += [
            mean,
            ndimage.gaussian_gradient_magnitude(grey, sigma),
            ndimage.gaussian_laplace(grey, sigma),
            np.sqrt(variance),
        ]
    return np.stack(planes, axis=-1)


def own_distance(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each of the (h, w, K) features from their own mean, under their own covariance: (h, w)."""
    flat = features.reshape(-1, features.shape[-1])  # (h*w, K)
    centred = flat - flat.mean(axis=0)
    covariance = centred.T @ centred / len(centred) + _RIDGE * np.eye(flat.shape[1])  # (K, K)
    squared = np.einsum("nk,nk->n", centred @ np.linalg.inv(covariance), centred)
    distance: NDArray[np.float64] = np.sqrt(np.maximum(squared, 0)).reshape(features.shape[:2])
    return distance


def _resized(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def _built(
    settings: MahalanobisConfig, config: ModelConfig, given: Mapping[str, object], offline: bool
) -> Built[Mahalanobis]:
    if config.encoder != PIXELS:
        raise ConfigError(f"mahalanobis works on pixels and takes no encoder, got {config.encoder!r}; omit --weights")
    return Built(PixelEncoder(), Mahalanobis(settings))


PARTS = Parts(_built, _built)
